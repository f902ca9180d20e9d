#!/bin/sh
# Make the secrets of docker-compose.yml, once: random, in docker/secrets, mode 0444 inside a
# folder only you can enter (containers read them as users of their own). Existing ones stay.
set -eu
cd "$(dirname "$0")"
folder=secrets
mkdir -p "$folder"
chmod 0700 "$folder"

random() { od -An -N32 -tx1 /dev/urandom | tr -d ' \n'; }
keep() { # name, content
  if [ ! -e "$folder/$1" ]; then
    printf '%s' "$2" > "$folder/$1"
    chmod 0444 "$folder/$1"
  fi
}

keep postgres_password "$(random)"
keep redis_password "$(random)"
keep fda_secret "$(random)"
keep grafana_password "$(random)"
keep fda_database_url "postgresql://fda:$(cat "$folder/postgres_password")@postgres:5432/fda"
keep fda_redis_url "redis://:$(cat "$folder/redis_password")@redis:6379/0"
if [ ! -e "$folder/aws_credentials" ]; then
  id="fda$(random | cut -c1-17)"
  secret="$(random)"
  keep aws_credentials "[default]
aws_access_key_id = $id
aws_secret_access_key = $secret
"
  keep s3_identities "{\"identities\": [{\"name\": \"fda\", \"credentials\": [{\"accessKey\": \"$id\", \"secretKey\": \"$secret\"}], \"actions\": [\"Admin\", \"Read\", \"Write\", \"List\", \"Tagging\"]}]}
"
fi
echo "secrets are in docker/$folder"
