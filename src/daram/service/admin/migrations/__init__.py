"""No tables: only the permissions for what the store keeps."""
