#!/bin/bash
# Runs once, when the database is made: the roles of deploy/postgres/roles.sql and their passwords.
set -euo pipefail

namespace=${THREADLINE_NAMESPACE:-threadline}
psql=(psql --no-psqlrc --quiet -v ON_ERROR_STOP=1 --username postgres --dbname "$POSTGRES_DB")

"${psql[@]}" -c "SET threadline.namespace = '$namespace'" -f /etc/threadline/roles.sql
for part in migrate producer worker observer; do
    "${psql[@]}" -v role="${namespace}_$part" -v password="$(< "/run/secrets/postgres_${part}_password")" \
        <<< "ALTER ROLE :\"role\" PASSWORD :'password';"
done
# For search by meaning: only an administrator may add an extension to this schema.
"${psql[@]}" -c 'CREATE EXTENSION IF NOT EXISTS vector SCHEMA public'
