-- Run once, when the database is made: conversations are in `daram`, users, keys and sessions here.
CREATE DATABASE accounts;
