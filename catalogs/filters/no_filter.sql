-- Every sample of the pool.
SELECT uid FROM samples;
