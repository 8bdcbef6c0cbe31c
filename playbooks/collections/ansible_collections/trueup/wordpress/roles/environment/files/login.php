<?php
/**
 * Keeps the hash of a one-time login. Loads no plugin and no theme. Prints {"home": …} on its last line.
 *
 * By the site's own PHP, which only root asks in this way: what visitors send has no such variables. Or from the command
 * line: php -- <root of WordPress> <sha256 of the token> <seconds that it lives>.
 *
 * License: Apache-2.0
 *
 * Copyright the Trueup contributors
 * SPDX-License-Identifier: Apache-2.0
 */

define( 'SHORTINIT', true );
list( $root, $digest, $life ) = 'cli' === PHP_SAPI
	? array_slice( $argv, 1 )
	: array( $_SERVER['DOCUMENT_ROOT'], $_SERVER['TRUEUP_LOGIN'] ?? '', $_SERVER['TRUEUP_LOGIN_LIFE'] ?? '' );
if ( ! $digest ) {
	exit( 2 );
}
require "$root/wp-load.php";

global $wpdb;
$prefix = $wpdb->prefix;
$user   = $wpdb->get_var(
	$wpdb->prepare(
		// What is left of a user who is gone can be an administrator's, too.
		"SELECT user_id FROM {$prefix}usermeta JOIN {$prefix}users ON {$prefix}users.ID = user_id
			WHERE meta_key = %s AND meta_value LIKE %s ORDER BY user_id LIMIT 1",
		"{$prefix}capabilities",
		'%"administrator";b:1%'
	)
);
$home = $wpdb->get_var( "SELECT option_value FROM {$prefix}options WHERE option_name = 'home'" );
if ( ! $user || ! $home ) {
	error_log( 'Trueup: there is no administrator, or no database.' );
	exit( 3 );
}
$wpdb->query(
	$wpdb->prepare(
		"DELETE FROM {$prefix}usermeta WHERE meta_key = 'trueup_login' AND CAST(SUBSTRING_INDEX(meta_value, ':', -1) AS UNSIGNED) < %d",
		time()
	)
);
$kept = $wpdb->query(
	$wpdb->prepare(
		"INSERT INTO {$prefix}usermeta (user_id, meta_key, meta_value) VALUES (%d, 'trueup_login', %s)",
		$user,
		$digest . ':' . ( time() + (int) $life )
	)
);
if ( 1 !== $kept ) {
	error_log( 'Trueup: the login was not kept.' );
	exit( 4 );
}
echo json_encode( array( 'home' => $home ) ), "\n";
