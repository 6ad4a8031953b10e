"""Moving house: conversations as a whole, from store to store, into files and out of them."""
