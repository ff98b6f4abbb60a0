-- The best passages for an FTS5 expression. :match the expression, :limit how many.
-- A term in the title or heading counts more than one in the text; equal ranks keep the order of the corpus.
SELECT p.id, p.title, p.heading, p.location, p.text
FROM words
JOIN passages AS p ON p.number = words.rowid
WHERE words MATCH :match
ORDER BY bm25(words, 4.0, 2.0, 1.0), p.number
LIMIT :limit;
