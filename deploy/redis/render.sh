#!/bin/sh
# Makes the server's ACL file from users.acl, on standard output; in the image of Valkey, in CI and by hand.
#
#   render.sh users.acl SECRETS [NAMESPACE] > /run/valkey/users.acl
#
# SECRETS is a folder with the files redis_producer_password, redis_worker_password and redis_observer_password. Exit code
# 2 and one line if one is missing or empty: a user without a password would let everybody in, or nobody.
set -eu

template=${1:?usage: render.sh users.acl SECRETS [NAMESPACE]}
secrets=${2:?usage: render.sh users.acl SECRETS [NAMESPACE]}
namespace=${3:-threadline}

case $namespace in
    '' | [!a-z]* | *[!a-z0-9_]*)
        echo "render.sh: namespace '$namespace': use a-z, 0-9 and _, starting with a letter" >&2
        exit 2
        ;;
esac

hash_of() {
    file=$secrets/redis_$1_password
    if [ ! -s "$file" ]; then
        echo "render.sh: $file is missing or empty: write the password of the user '$1' into it" >&2
        exit 2
    fi
    # A newline at the end is the editor's, not the password's.
    tr -d '\n' < "$file" | sha256sum | cut -d ' ' -f 1
}

producer=$(hash_of producer)
worker=$(hash_of worker)
observer=$(hash_of observer)

sed -e '/^#/d' -e '/^$/d' -e "s/@NAMESPACE@/$namespace/g" \
    -e "s/@PRODUCER@/$producer/" -e "s/@WORKER@/$worker/" -e "s/@OBSERVER@/$observer/" "$template"
