<?php
/**
 * Plugin Name: Trueup
 * Description: One-time logins; and what a copy of a site must not do: be found by search engines, or write to the site's customers.
 * License: Apache-2.0
 *
 * Copyright the Trueup contributors
 * SPDX-License-Identifier: Apache-2.0
 */

/**
 * A one-time login. GET only shows a form that sends itself: what previews links for a chat must not use it up.
 */
function trueup_login() {
	$posted = 'POST' === $_SERVER['REQUEST_METHOD'];
	$token  = $posted ? ( $_POST['trueup_login'] ?? null ) : ( $_GET['trueup_login'] ?? null );
	if ( ! is_string( $token ) ) {
		return;
	}
	nocache_headers();
	header( 'Referrer-Policy: no-referrer' );
	header( 'X-Robots-Tag: noindex, nofollow' );
	if ( ! $posted ) {
		trueup_show_login_form( $token );
	}
	$user = trueup_claim_login( $token );
	if ( ! $user ) {
		wp_die( 'This login was used already, or is older than a minute. Ask for a new one.', 'Login', array( 'response' => 403 ) );
	}
	trueup_log_in( $user );
}
add_action( 'init', 'trueup_login', 0 );

/**
 * Log the browser in, whatever a plugin makes of it: one that asks for a second factor ends this very request with its
 * own page, after it took back cookies and session. Who has the token was let in by whoever runs this server.
 */
function trueup_log_in( $user ) {
	$made  = null;
	$ended = true;
	$level = ob_get_level();
	add_action(
		'set_logged_in_cookie',
		static function ( $cookie, $expire, $expiration, $user_id, $scheme, $token ) use ( $user, &$made ) {
			// Cookies that somebody makes afterwards are not sent.
			if ( null === $made && $user_id === $user->ID ) {
				$made = array( $token, WP_Session_Tokens::get_instance( $user_id )->get( $token ) );
			}
		},
		PHP_INT_MIN,
		6
	);
	add_action(
		'shutdown',
		static function () use ( $user, &$made, &$ended, $level ) {
			trueup_complete_login( $user, $made, $ended, $level );
		},
		PHP_INT_MIN
	);
	ob_start();
	// Also for a plugin that sends what there is by now.
	header( 'Location: ' . admin_url(), true, 302 );
	try {
		wp_set_auth_cookie( $user->ID );
		wp_set_current_user( $user->ID );
		// From now on nobody sends other cookies, or ones that are over.
		add_filter( 'send_auth_cookies', '__return_false', PHP_INT_MAX );
		do_action( 'wp_login', $user->user_login, $user );
		$ended = false;
	} catch ( Throwable $error ) {
		error_log( "Trueup: a plugin failed at a one-time login: $error" );
	}
	exit;
}

/**
 * `$made`: token and session of the cookies that were made, or null. `$ended`: somebody ended the request meanwhile.
 */
function trueup_complete_login( $user, $made, $ended, $level ) {
	list( $token, $session ) = $made ? $made : array( '', null );
	$sessions = WP_Session_Tokens::get_instance( $user->ID );
	if ( $session && ! $sessions->verify( $token ) ) {
		$sessions->update( $token, $session );
		$ended = true;
	}
	for ( $left = ob_get_level() - $level; $left > 0; $left-- ) {
		ob_end_clean();
	}
	if ( headers_sent() || ( ! $ended && trueup_is_sent( $token ) ) ) {
		return;
	}
	foreach ( array( 'attach_session_information', 'set_auth_cookie', 'set_logged_in_cookie', 'send_auth_cookies' ) as $hook ) {
		remove_all_filters( $hook );
	}
	wp_set_auth_cookie( $user->ID, false, '', $token );
	header( 'Location: ' . admin_url(), true, 302 );
}

/**
 * Whether a cookie with this token is among what is sent.
 */
function trueup_is_sent( $token ) {
	foreach ( headers_list() as $header ) {
		if ( str_starts_with( $header, 'Set-Cookie: ' . LOGGED_IN_COOKIE . '=' ) && str_contains( $header, $token ) ) {
			return true;
		}
	}
	return false;
}

function trueup_show_login_form( $token ) {
	header( 'Content-Type: text/html; charset=utf-8' );
	$action = esc_url( home_url( '/' ) );
	$value  = esc_attr( $token );
	echo "<!DOCTYPE html><html><head><meta charset='utf-8'><title>Login</title></head><body>",
		"<form id='login' method='post' action='$action'><input type='hidden' name='trueup_login' value='$value'>",
		"<button>Log in</button></form><script>document.getElementById('login').submit()</script></body></html>";
	exit;
}

/**
 * The user whose token this is; null when there is none. Of requests at the same moment one removes the row, and is in.
 */
function trueup_claim_login( $token ) {
	global $wpdb;
	$row = $wpdb->get_row(
		$wpdb->prepare(
			"SELECT umeta_id, user_id, meta_value FROM {$wpdb->usermeta} WHERE meta_key = 'trueup_login' AND meta_value LIKE %s",
			hash( 'sha256', $token ) . ':%'
		)
	);
	if ( ! $row || 1 !== $wpdb->delete( $wpdb->usermeta, array( 'umeta_id' => $row->umeta_id ) ) ) {
		return null;
	}
	$expires = (int) substr( strrchr( $row->meta_value, ':' ), 1 );
	$user    = get_user_by( 'id', (int) $row->user_id );
	return $user && $expires >= time() ? $user : null;
}

/**
 * Which of a site's names leads to which is the web server's to say. WordPress would answer 301, which browsers keep
 * for ever, also in the moment in which an address moves.
 */
function trueup_canonical( $redirect, $requested ) {
	return wp_parse_url( $redirect, PHP_URL_HOST ) === wp_parse_url( $requested, PHP_URL_HOST ) ? $redirect : false;
}
add_filter( 'redirect_canonical', 'trueup_canonical', PHP_INT_MAX, 2 );

// What nginx keeps of the site, and what says that it changed.
if ( defined( 'TRUEUP_MAIL_LOG' ) && is_file( dirname( TRUEUP_MAIL_LOG, 2 ) . '/shared/pages.php' ) ) {
	require_once dirname( TRUEUP_MAIL_LOG, 2 ) . '/shared/pages.php';
}

if ( ! defined( 'TRUEUP_ENVIRONMENT' ) || 'production' === TRUEUP_ENVIRONMENT ) {
	return;
}

add_filter( 'pre_option_blog_public', static fn() => '0' );

// A wp-config.php of an earlier version does not load it. One in which WordPress is only installed has none.
if ( ! function_exists( 'trueup_keep_mail' ) && is_file( dirname( TRUEUP_MAIL_LOG, 2 ) . '/shared/copy.php' ) ) {
	require_once dirname( TRUEUP_MAIL_LOG, 2 ) . '/shared/copy.php';
}

/**
 * What a wp_mail() that is not copy.php's would send: it takes any answer but null for its own.
 */
function trueup_keep_mail_of_wordpress( $answer, $message ) {
	if ( function_exists( 'trueup_keep_mail' ) ) {
		trueup_keep_mail( $message );
	}
	return true;
}
add_filter( 'pre_wp_mail', 'trueup_keep_mail_of_wordpress', PHP_INT_MAX, 2 );

/**
 * A recurring action that waits is not there for its plugin, which would make it anew, and that one would run.
 */
function trueup_keep_waiting( $answer, $time, $rhythm, $hook ) {
	$waits = function_exists( 'trueup_waiting_actions' ) && in_array( $hook, array_column( trueup_waiting_actions(), 'hook' ), true );
	return $waits ? 0 : $answer;
}
add_filter( 'pre_as_schedule_recurring_action', 'trueup_keep_waiting', PHP_INT_MAX, 4 );
add_filter( 'pre_as_schedule_cron_action', 'trueup_keep_waiting', PHP_INT_MAX, 4 );

/**
 * Keep what was asked for of whom and refused, so that nobody wonders.
 */
function trueup_keep_refused( $response, $context, $transport, $arguments, $url ) {
	if ( is_wp_error( $response ) && function_exists( 'trueup_keep_line' ) ) {
		$line = array(
			'method' => $arguments['method'] ?? '',
			'host'   => (string) wp_parse_url( $url, PHP_URL_HOST ),
			// What it says in words may have the whole address in it.
			'error'  => (string) $response->get_error_code(),
		);
		trueup_keep_line( dirname( TRUEUP_MAIL_LOG ) . '/refused.log', $line );
	}
}
add_action( 'http_api_debug', 'trueup_keep_refused', 10, 5 );
