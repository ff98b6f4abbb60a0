#!/bin/sh
# Makes the URLs of the servers from the secrets of this container and becomes `threadline …`: no password stands in the
# compose file, in `docker inspect` or on a command line. After `migrate`, the grants are given anew.
set -eu

namespace=${THREADLINE_NAMESPACE:-threadline}

password() {
    # make-secrets.sh writes hex, which needs no escaping in a URL.
    tr -d '\n' < "/run/secrets/$1_password"
}

DATABASE_URL="postgresql://${namespace}_${DATABASE_ROLE}:$(password "postgres_${DATABASE_ROLE}")@postgres:5432/threadline"
export DATABASE_URL
if [ "${SERVERS}" = both ]; then
    REDIS_URL="redis://${DATABASE_ROLE}:$(password "redis_${DATABASE_ROLE}")@valkey:6379/0"
    export REDIS_URL
fi
unset SERVERS DATABASE_ROLE

if [ "$1" = migrate ]; then
    threadline migrate
    exec python /opt/threadline/postgres/apply.py /opt/threadline/postgres/grants.sql
fi
exec threadline "$@"
