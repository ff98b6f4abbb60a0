#!/bin/sh
# Writes a random password into each file of ./secrets that is not there yet; a second run changes nothing.
set -eu

cd "$(dirname "$0")"
umask 077
mkdir -p secrets
for name in postgres_admin postgres_migrate postgres_producer postgres_worker postgres_observer \
    redis_producer redis_worker redis_observer grafana_admin; do
    file=secrets/${name}_password
    if [ ! -s "$file" ]; then
        od -An -N24 -tx1 /dev/urandom | tr -d ' \n' > "$file"
        # The folder is closed to others; the containers' users read the file itself.
        chmod 0444 "$file"
    fi
done
