"""One module for each kind of document; ``daram.text.load`` chooses."""
