#!/bin/sh
# The plain way of each operation, on the node: what somebody at its terminal would run. Arguments: operation, its own.
set -eu
database() { echo "wp_$(echo "$1" | tr -d - | cut -c1-12)"; }
as() { user=wp-$(echo "$1" | tr -d - | cut -c1-12); shift; setpriv --reuid="$user" --regid="$user" --clear-groups "$@"; }
wp() { id=$1; shift; as "$id" env HOME=/tmp php /usr/local/bin/wp --path="/var/www/sites/$id/current" --skip-plugins --skip-themes "$@"; }

login() { wp "$1" user meta update 1 plain_login "$(head -c 32 /dev/urandom | sha256sum | cut -c1-64)"; }

# Beside the site, so that what is measured next is not what this left: the same files, another link.
deploy() {
    plain=/srv/plain/$1 && mkdir -p "$plain" && cd "$plain"
    git clone -q --depth 1 "$2" "source$3"
    cp -a "$(readlink -f "/var/www/sites/$1/current")" "release$3"
    cp -a "source$3/wp-content/." "release$3/wp-content/"
    ln -sfn "release$3" current.new && mv -T current.new current
}

clone() {
    rm -rf /srv/plain/clone && mkdir -p /srv/plain/clone
    mariadb -e "DROP DATABASE IF EXISTS plain_clone; CREATE DATABASE plain_clone; GRANT ALL ON plain_clone.* TO $(database "$1")@localhost"
    mariadb-dump --single-transaction "$(database "$1")" | mariadb plain_clone
    cp -aL "/var/www/sites/$1/current" /srv/plain/clone/site
    chmod -R go+rX /srv/plain
    as "$1" env HOME=/tmp php /usr/local/bin/wp --path="/var/www/sites/$1/current" --skip-plugins --skip-themes \
        --exec='define("DB_NAME", "plain_clone");' search-replace "$2" http://clone.example.test --all-tables --quiet
}

backup() {
    work=$(mktemp -d /var/tmp/plain-XXXX)
    mariadb-dump --single-transaction "$(database "$1")" | zstd -q > "$work/database.zst"
    tar -C "/var/www/sites/$1/shared" -c uploads -C "/var/www/sites/$1/current" wp-content | zstd -q > "$work/files.zst"
    sha256sum "$work"/* > /dev/null
    curl -sf -T "$work/database.zst" "$2" && curl -sf -T "$work/files.zst" "$3"
    rm -rf "$work"
}

restore() {
    mariadb -e "DROP DATABASE IF EXISTS plain_restore; CREATE DATABASE plain_restore"
    rm -rf /srv/plain/restore && mkdir -p /srv/plain/restore
    curl -sf "$2" | zstd -dq | mariadb plain_restore
    curl -sf "$3" | zstd -dq | tar -C /srv/plain/restore -x
}

# All of it while visitors are told to wait. What only the target changed meanwhile is lost; whoever looks, sees it.
promote() {
    closed="/var/www/sites/$2/current/.maintenance"
    echo '<?php $upgrading = time();' > "$closed"
    mariadb-dump --single-transaction "$(database "$1")" wp_options wp_links | mariadb "$(database "$2")"
    wp "$2" search-replace "$3" "$4" wp_options --quiet
    rsync -a --exclude uploads --exclude mu-plugins --exclude object-cache.php \
        "/var/www/sites/$1/current/wp-content/" "$(readlink -f "/var/www/sites/$2/current")/wp-content/"
    rm "$closed"
}

purge() {
    rm -rf "/var/cache/nginx/$1"/*
    redis-cli -s "/run/trueup-redis/$1/redis.sock" flushdb > /dev/null
}

update() {
    plain=/srv/plain/$1 && mkdir -p "$plain" && cd "$plain"
    rm -rf updated && cp -a "$(readlink -f "/var/www/sites/$1/current")" updated
    curl -sf "$2" -o package.zip && python3 -m zipfile -e package.zip updated/wp-content/plugins/
    ln -sfn updated current.new && mv -T current.new current
}

bring() {
    rm -rf /srv/plain/import && mkdir -p /srv/plain/import && cd /srv/plain/import
    curl -sf "$2" | tar -xz
    mariadb -e "DROP DATABASE IF EXISTS plain_import; CREATE DATABASE plain_import; GRANT ALL ON plain_import.* TO $(database "$1")@localhost"
    mariadb plain_import < db.sql
    as "$1" env HOME=/tmp php /usr/local/bin/wp --path="/var/www/sites/$1/current" --skip-plugins --skip-themes \
        --exec='define("DB_NAME", "plain_import");' search-replace "$3" http://import.example.test --all-tables --quiet
}

# What the first domain left there is trusted by: the ACME server is one's own.
domain() {
    web=/srv/plain/web && mkdir -p "$web" && conf=/etc/nginx/conf.d/plain-domain.conf
    printf 'server { listen 80; server_name %s; root %s; }\n' "$2" "$web" > "$conf"
    nginx -t -q && systemctl reload nginx && sleep 0.2
    REQUESTS_CA_BUNDLE=/etc/trueup/acme/ca.pem certbot certonly --quiet --non-interactive --agree-tos \
        --register-unsafely-without-email --config-dir /srv/plain/le --work-dir /srv/plain/le --logs-dir /srv/plain/le \
        --server "$3" --webroot --webroot-path "$web" --domain "$2"
    printf 'server { listen 443 ssl; server_name %s; root %s; ssl_certificate /srv/plain/le/live/%s/fullchain.pem; ssl_certificate_key /srv/plain/le/live/%s/privkey.pem; }\n' \
        "$2" "/var/www/sites/$1/current" "$2" "$2" >> "$conf"
    nginx -t -q && systemctl reload nginx
}

remove() {
    mariadb -e "DROP DATABASE IF EXISTS plain_clone"
    rm -rf /srv/plain/clone
}

"$@"
