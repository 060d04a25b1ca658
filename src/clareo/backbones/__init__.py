"""Networks: our compact ones, and adapters around published ones."""
