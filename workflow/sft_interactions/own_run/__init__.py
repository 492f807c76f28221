"""A study of a fine-tuning run of one's own, made from the folder that its trainer has left."""
