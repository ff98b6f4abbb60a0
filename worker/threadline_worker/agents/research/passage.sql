-- One passage by its :id, with the ids of its neighbours in the same file (NULL at the ends).
SELECT
    p.id, p.title, p.heading, p.location, p.text,
    (SELECT b.id FROM passages AS b WHERE b.number = p.number - 1 AND b.path = p.path) AS previous_id,
    (SELECT a.id FROM passages AS a WHERE a.number = p.number + 1 AND a.path = p.path) AS next_id
FROM passages AS p
WHERE p.id = :id;
