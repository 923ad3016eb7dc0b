"""Storage: the one owner of database and pictures. The database is the truth and the queue."""
