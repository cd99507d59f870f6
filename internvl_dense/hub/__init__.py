"""Downloads of published weights. Only `client` opens a connection; nothing else in the project does."""
