"""What a system understands of a photo before it touches it: a restoration prompt, tags, a caption, tokens.

prompts     which of twelve prompts fit: IRPAD         vision      image tokens, and their alignment
tags        single words: RAM, a file, none            captions    sentences: LLaVA, a file, none; what is kept
reader      all of IRPAD at nano scale                 scale       an enlargement undone
attributes  what clean photos show, by formula         tagger      the same, seen through damage
templates   captions without a network                 sources     who looks, by name
answers     what was said of photos, in a file         published   networks in transformers' layout
masks       who masks a photo, by name                 segments    superpixels, merged: no network
instances   masks painted, read back, under tokens     rle         masks as SA-1B writes them
scenes      procedural, with exact masks               shapes      what they are made of
teacher     frozen tokens that others align to         regions     label maps

What is said ends in a `Percept`, which people can print, edit and pass back; masks and teachers serve training.
"""
