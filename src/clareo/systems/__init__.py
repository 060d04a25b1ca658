"""The papers. One file is one system, and its file name is the name it is loaded by."""
