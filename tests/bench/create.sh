#!/bin/sh
# The plain way to a new WordPress site on a provisioned host: what somebody at its terminal would run.
# Arguments: a short name, the host name, the archive of WordPress.
set -eu
name=$1 host=$2 archive=$3
home=/srv/plain/$name
useradd --system --no-create-home --shell /usr/sbin/nologin "$name"
mkdir -p "$home"
tar -xzf "$archive" -C "$home"
mv "$home/wordpress" "$home/site"
chown -R "$name:www-data" "$home"
password=$(head -c 18 /dev/urandom | base64)
mysql -e "CREATE DATABASE $name; CREATE USER $name@localhost IDENTIFIED BY '$password'; GRANT ALL ON $name.* TO $name@localhost"
wp() { runuser -u "$name" -- env HOME=/tmp php /usr/local/bin/wp --path="$home/site" "$@"; }
wp config create --dbname="$name" --dbuser="$name" --dbpass="$password" --quiet
echo "127.0.0.1 $host" >>/etc/hosts
version=$(php -r 'echo PHP_MAJOR_VERSION . "." . PHP_MINOR_VERSION;')
cat >"/etc/php/$version/fpm/pool.d/$name.conf" <<POOL
[$name]
user = $name
group = $name
listen = /run/php/$name.sock
listen.owner = www-data
pm = ondemand
pm.max_children = 8
POOL
cat >"/etc/nginx/sites-enabled/$name.conf" <<BLOCK
server {
    listen 80;
    server_name $host;
    root $home/site;
    index index.php;
    location / { try_files \$uri \$uri/ /index.php?\$args; }
    location ~ \.php\$ { include snippets/fastcgi-php.conf; fastcgi_pass unix:/run/php/$name.sock; }
}
BLOCK
systemctl restart "php$version-fpm"
nginx -t -q && systemctl reload nginx
wp core install --url="http://$host" --title="Plain $name" --admin_user=admin --admin_email=admin@example.com \
    --skip-email --quiet
test "$(curl -s -o /dev/null -w '%{http_code}' -H "Host: $host" http://127.0.0.1/)" = 200
