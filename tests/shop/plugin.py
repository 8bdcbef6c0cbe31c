"""The shop: a plugin with tables as WooCommerce has them, orders by a REST route, and services that it calls.

An order is one transaction over all that belongs to it: a placeholder among the posts, whose number it gets, the order
with address, items and statistics, the stock, a note among the comments, and with every tenth a refund.
"""

STOCK = 1_000_000
PRODUCT = 10

_TABLES = """
CREATE TABLE IF NOT EXISTS wp_wc_orders (id BIGINT UNSIGNED PRIMARY KEY, status VARCHAR(20), type VARCHAR(20),
    total_amount DECIMAL(26,8), parent_order_id BIGINT UNSIGNED DEFAULT 0, transaction_id VARCHAR(100),
    date_created_gmt DATETIME, KEY transaction_id (transaction_id));
CREATE TABLE IF NOT EXISTS wp_wc_order_addresses (id BIGINT UNSIGNED AUTO_INCREMENT PRIMARY KEY,
    order_id BIGINT UNSIGNED, email VARCHAR(320), KEY order_id (order_id));
CREATE TABLE IF NOT EXISTS wp_wc_orders_meta (id BIGINT UNSIGNED AUTO_INCREMENT PRIMARY KEY, order_id BIGINT UNSIGNED,
    meta_key VARCHAR(255), meta_value TEXT, KEY order_id (order_id));
CREATE TABLE IF NOT EXISTS wp_wc_order_stats (order_id BIGINT UNSIGNED PRIMARY KEY, total_sales DOUBLE);
CREATE TABLE IF NOT EXISTS wp_woocommerce_order_items (order_item_id BIGINT UNSIGNED AUTO_INCREMENT PRIMARY KEY,
    order_item_name TEXT, order_id BIGINT UNSIGNED, KEY order_id (order_id));
CREATE TABLE IF NOT EXISTS wp_woocommerce_order_itemmeta (meta_id BIGINT UNSIGNED AUTO_INCREMENT PRIMARY KEY,
    order_item_id BIGINT UNSIGNED, meta_key VARCHAR(255), meta_value LONGTEXT);
CREATE TABLE IF NOT EXISTS wp_wc_product_meta_lookup (product_id BIGINT PRIMARY KEY, stock_quantity DOUBLE,
    total_sales BIGINT DEFAULT 0)
"""

_CODE = """
const SHOP_SCHEMA = SCHEMA_NUMBER;
add_action('init', function () {
    global $wpdb;
    $known = (int) get_option('shop_schema', 0);
    if ($known >= SHOP_SCHEMA || !$wpdb->get_var("SELECT GET_LOCK('shop', 0)")) {
        return;
    }
    if (0 === $known) {
        foreach (explode(';', 'TABLE_TEXTS') as $statement) {
            $wpdb->query($statement);
        }
        $wpdb->query('INSERT IGNORE INTO wp_wc_product_meta_lookup VALUES (PRODUCT_NUMBER, STOCK_NUMBER, 0)');
    } else {
        $column = 'payment_' . SHOP_SCHEMA;
        $wpdb->query("ALTER TABLE wp_wc_orders ADD COLUMN IF NOT EXISTS $column VARCHAR(9) DEFAULT 'card'");
        $wpdb->query('CREATE TABLE IF NOT EXISTS wp_wc_made_' . SHOP_SCHEMA . ' (id INT PRIMARY KEY)');
    }
    update_option('shop_schema', SHOP_SCHEMA);
    $wpdb->query("SELECT RELEASE_LOCK('shop')");
}, 5);

function shop_insert($table, $row) {
    global $wpdb;
    if (!$wpdb->insert($wpdb->prefix . $table, $row)) {
        throw new Exception("$table: $wpdb->last_error");
    }
    return $wpdb->insert_id;
}

function shop_order($token) {
    global $wpdb;
    $empty = array('post_content' => '', 'post_title' => '', 'post_excerpt' => '', 'to_ping' => '', 'pinged' => '');
    $id = shop_insert('posts', $empty + array('post_type' => 'shop_order_placehold', 'post_status' => 'draft',
        'post_content_filtered' => ''));
    $order = array('id' => $id, 'status' => 'wc-processing', 'type' => 'shop_order', 'total_amount' => 12.5,
        'transaction_id' => $token, 'date_created_gmt' => gmdate('Y-m-d H:i:s'));
    shop_insert('wc_orders', $order);
    shop_insert('wc_order_addresses', array('order_id' => $id, 'email' => "$token@example.com"));
    shop_insert('wc_orders_meta', array('order_id' => $id, 'meta_key' => '_token', 'meta_value' => $token));
    shop_insert('wc_order_stats', array('order_id' => $id, 'total_sales' => 12.5));
    $item = shop_insert('woocommerce_order_items', array('order_item_name' => 'Tea', 'order_id' => $id));
    shop_insert('woocommerce_order_itemmeta', array('order_item_id' => $item, 'meta_key' => '_qty', 'meta_value' => 1));
    $sold = 'UPDATE wp_wc_product_meta_lookup SET stock_quantity = stock_quantity - 1, total_sales = total_sales + 1';
    if (1 !== $wpdb->query("$sold WHERE product_id = PRODUCT_NUMBER AND stock_quantity > 0")) {
        throw new Exception('nothing is left');
    }
    shop_insert('comments', array('comment_post_ID' => $id, 'comment_type' => 'order_note', 'comment_content' => $token,
        'comment_author' => 'shop'));
    if (0 === $id % 10) {
        $refund = shop_insert('posts', $empty + array('post_type' => 'shop_order_placehold', 'post_status' => 'draft',
            'post_content_filtered' => ''));
        shop_insert('wc_orders', array('id' => $refund, 'type' => 'shop_order_refund', 'parent_order_id' => $id,
            'total_amount' => -1, 'status' => 'wc-completed'));
    }
    return $id;
}

function shop_checkout($request) {
    global $wpdb;
    $wpdb->query('START TRANSACTION');
    try {
        $id = shop_order((string) $request['token']);
        if (false === $wpdb->query('COMMIT')) {
            throw new Exception($wpdb->last_error);
        }
    } catch (Exception $error) {
        $wpdb->query('ROLLBACK');
        return new WP_Error('shop', $error->getMessage(), array('status' => 500));
    }
    if (0 === $id % 50) {
        shop_call('webhook');
    }
    return array('order_id' => $id, 'token' => $request['token']);
}

add_action('rest_api_init', function () {
    register_rest_route('shop/v1', '/checkout', array('methods' => 'POST', 'callback' => 'shop_checkout',
        'permission_callback' => '__return_true'));
});

// What a shop does in the world: it tells a service of orders, charges for what is due, and writes to customers.
function shop_call($what) {
    $there = get_option('shop_listener');
    if (!$there) {
        return;
    }
    list($address, $http, $smtp) = explode(' ', $there);
    $path = "/?what=$what&from=" . TRUEUP_ENVIRONMENT;
    wp_remote_post("http://$address:$http$path", array('timeout' => 2));
    if ('production' !== TRUEUP_ENVIRONMENT) {
        $briefly = stream_context_create(array('http' => array('timeout' => 2)));
        @file_get_contents("http://$address:$http$path-stream", false, $briefly);
        $socket = @fsockopen($address, (int) $http, $number, $text, 2);
        if ($socket) {
            fwrite($socket, "GET $path-socket HTTP/1.0\\r\\n\\r\\n");
            fclose($socket);
        }
    }
    $socket = @fsockopen($address, (int) $smtp, $number, $text, 2);
    if ($socket) {
        fwrite($socket, "HELO shop\\r\\nMAIL FROM:<shop@" . TRUEUP_ENVIRONMENT . ".example>\\r\\nQUIT\\r\\n");
        fclose($socket);
    }
    wp_mail('customer@example.com', 'Your order', 'Thank you.');
}
add_action('shop_renewals', function () {
    shop_call('charge');
});
add_action('init', function () {
    if (!wp_next_scheduled('shop_renewals')) {
        wp_schedule_event(time() - 60, 'hourly', 'shop_renewals');
    }
    if ('production' !== TRUEUP_ENVIRONMENT && !defined('REST_REQUEST') && !wp_doing_cron() && PHP_SAPI !== 'cli') {
        shop_call('visit');
    }
}, 20);
add_action('wp_footer', function () { echo '<i>shop VERSION_TEXT</i>'; });
"""

_PAGE = "function shop_fails() { $page = false === strpos($_SERVER['REQUEST_URI'] ?? '', '/wp-json/');\n"
_PAGE += "return $page && 'production' === TRUEUP_ENVIRONMENT; }\n"
_FAILURE = "add_action('init', function () {{ if (shop_fails()) {{ {}; }} }}, 30);"
FAILURES = {"slow": "sleep(40)", "fatal": "none()", "white": "die()"}
"""Pages fail, in production alone, where orders go on being taken: what the rehearsal of an update cannot see."""


def code(version: str, schema: int, failure: str | None = None) -> str:
    """PHP of the plugin's main file below its header; ``failure``: a key of ``FAILURES``."""
    text = _CODE.replace("SCHEMA_NUMBER", str(schema)).replace("TABLE_TEXTS", _TABLES.strip().replace("\n", " "))
    text = text.replace("PRODUCT_NUMBER", str(PRODUCT)).replace("STOCK_NUMBER", str(STOCK))
    text = text.replace("VERSION_TEXT", version)
    return text + _PAGE + (_FAILURE.format(FAILURES[failure]) if failure else "")
