-- One sample of each picture, by the hash of its file: that with the lowest uid. A sample without a hash stays.
--   hash (column) = sha256: The column of hashes.
SELECT min(uid) AS uid FROM samples WHERE {hash} IS NOT NULL GROUP BY md5_number({hash}::VARCHAR)
UNION ALL
SELECT uid FROM samples WHERE {hash} IS NULL;
