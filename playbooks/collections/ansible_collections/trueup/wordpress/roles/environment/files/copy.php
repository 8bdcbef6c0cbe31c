<?php
/**
 * What a copy of a site does otherwise than production: its mail is kept, whatever sends it, and what came with its
 * content (due events, scheduled actions, webhooks) waits until somebody releases it.
 *
 * wp-config.php loads this before drop-ins and plugins, so that none of them comes first. PHP's own mail() runs it as its
 * sendmail. Root asks it, by PHP's socket, what waits, and has it released: what visitors send has no such variables.
 *
 * License: Apache-2.0
 *
 * Copyright the Trueup contributors
 * SPDX-License-Identifier: Apache-2.0
 */

const TRUEUP_LONGEST_LOG  = 16 * 1024 * 1024;
const TRUEUP_LONGEST_MAIL = 1024 * 1024;

/**
 * Keep a line in a log of the copy's, an object as JSON; the log before it is kept, too.
 */
function trueup_keep_line( $log, array $line ) {
	if ( @filesize( $log ) > TRUEUP_LONGEST_LOG ) {
		@rename( $log, "$log.1" );
		clearstatcache( true, $log );
	}
	$flags = JSON_UNESCAPED_UNICODE | JSON_UNESCAPED_SLASHES | JSON_INVALID_UTF8_SUBSTITUTE | JSON_PARTIAL_OUTPUT_ON_ERROR;
	@file_put_contents( $log, json_encode( array( 'time' => gmdate( 'c' ) ) + $line, $flags ) . "\n", FILE_APPEND | LOCK_EX );
}

/**
 * Count what was stopped, in a file beside the logs that the node's own look at the environment reads.
 *
 * @param callable $change What the numbers by name become.
 */
function trueup_count( callable $change ) {
	$file = @fopen( dirname( TRUEUP_MAIL_LOG ) . '/stopped.json', 'c+' );
	if ( ! $file ) {
		return;
	}
	flock( $file, LOCK_EX );
	$known = json_decode( (string) stream_get_contents( $file, 4096 ), true );
	$text  = json_encode( $change( is_array( $known ) ? $known : array() ) );
	rewind( $file );
	ftruncate( $file, 0 );
	fwrite( $file, $text );
	fclose( $file );
}

/**
 * Keep a message instead of sending it.
 *
 * @param array $message As wp_mail() takes it, by name.
 */
function trueup_keep_mail( array $message ) {
	$text = static fn( $value ) => is_string( $value ) ? substr( $value, 0, TRUEUP_LONGEST_MAIL ) : $value;
	trueup_keep_line(
		TRUEUP_MAIL_LOG,
		array(
			'to'          => $message['to'] ?? '',
			'subject'     => $text( $message['subject'] ?? '' ),
			'message'     => $text( $message['message'] ?? '' ),
			'headers'     => $message['headers'] ?? '',
			'attachments' => array_map( static fn( $one ) => basename( (string) $one ), array_values( (array) ( $message['attachments'] ?? array() ) ) ),
		)
	);
	trueup_count( static fn( $known ) => array( 'mails' => (int) ( $known['mails'] ?? 0 ) + 1 ) + $known );
}

/**
 * Whether code of this release declares wp_mail() without asking whether there is one: it then is left its own, which the
 * network refuses, as the site would not be loaded otherwise.
 */
function trueup_mail_is_declared() {
	return @file_get_contents( WP_TEMP_DIR . '/trueup-mail-is-declared' ) === realpath( ABSPATH );
}

function trueup_see_who_declares_mail() {
	$error = error_get_last();
	if ( $error && preg_match( '/^Cannot redeclare (?:function )?wp_mail\(\)/', $error['message'] ) ) {
		file_put_contents( WP_TEMP_DIR . '/trueup-mail-is-declared', realpath( ABSPATH ) );
	}
}

/**
 * A message to sendmail, from standard input.
 */
function trueup_take_mail() {
	$text  = (string) stream_get_contents( STDIN, 2 * TRUEUP_LONGEST_MAIL );
	$parts = preg_split( "/\r?\n\r?\n/", $text, 2 );
	$one   = static fn( $name ) => preg_match( "/^$name:[ \t]*(.*(?:\r?\n[ \t].*)*)/mi", $parts[0], $found ) ? trim( $found[1] ) : '';
	trueup_keep_mail(
		array(
			'to'      => $one( 'To' ),
			'subject' => $one( 'Subject' ),
			'message' => $parts[1] ?? '',
			'headers' => $parts[0],
		)
	);
}

/**
 * Hooks of WordPress's own, which act on nothing but the site itself, and the one that runs scheduled actions: each of
 * those waits or does not.
 */
const TRUEUP_HARMLESS = array(
	'wp_version_check',
	'wp_update_plugins',
	'wp_update_themes',
	'wp_scheduled_delete',
	'wp_scheduled_auto_draft_delete',
	'delete_expired_transients',
	'wp_privacy_delete_old_export_files',
	'wp_privacy_personal_data_cleanup_requests',
	'wp_delete_temp_updater_backups',
	'wp_site_health_scheduled_check',
	'wp_update_user_counts',
	'wp_split_shared_term_batch',
	'wp_update_comment_type_batch',
	'recovery_mode_clean_expired_keys',
	'upgrader_scheduled_cleanup',
	'importer_scheduled_cleanup',
	'action_scheduler_run_queue',
);
const TRUEUP_WAITING = 'trueup-held';

/**
 * Whether what came with the content that is declared was told apart from what the copy came to have since.
 */
function trueup_is_held() {
	global $wpdb;
	$found = $wpdb->get_var( "SELECT option_value FROM {$wpdb->options} WHERE option_name = 'trueup_copy'" );
	return TRUEUP_CONTENT === $found;
}

/**
 * Have what came with the content wait: once for each content, in the first request that meets it, before any of it runs.
 */
function trueup_hold() {
	if ( wp_installing() || ! trueup_holds() || get_option( 'trueup_copy' ) === TRUEUP_CONTENT ) {
		return;
	}
	trueup_alone(
		static function () {
			if ( trueup_is_held() ) {
				return;
			}
			// A text that was replaced in place brought nothing: what waits goes on waiting, and the rest is the copy's own.
			if ( ( defined( 'TRUEUP_IN_PLACE' ) && TRUEUP_IN_PLACE ) || trueup_hold_all() ) {
				update_option( 'trueup_copy', TRUEUP_CONTENT );
			}
		}
	);
	if ( ! trueup_is_held() ) {
		// Nothing of the content's runs before it is known what of it waits.
		if ( 'cli' !== PHP_SAPI ) {
			status_header( 503 );
			header( 'Retry-After: 5' );
		}
		echo "What came with this copy's content is not set aside yet.\n";
		exit( 1 );
	}
}

/**
 * Whether all of it waits now. Each step can be done again by the next request, wherever this one ends: what is remembered
 * comes before what it is of.
 */
function trueup_hold_all() {
	$held = trueup_held();
	foreach ( (array) _get_cron_array() as $time => $hooks ) {
		foreach ( array_diff_key( (array) $hooks, array_flip( TRUEUP_HARMLESS ) ) as $hook => $events ) {
			foreach ( array_keys( $events ) as $signature ) {
				$held['events'][ $hook ][] = "$time|$signature";
			}
		}
	}
	$held['events'] = array_map( static fn( $keys ) => array_values( array_unique( $keys ) ), $held['events'] );
	trueup_hold_actions();
	$webhooks          = trueup_active_webhooks();
	$held['webhooks'] += $webhooks;
	if ( ! trueup_remember( $held ) ) {
		return false;
	}
	trueup_set_webhooks( array_keys( $webhooks ), 'paused' );
	return true;
}

/**
 * Whether something may have come with the content. A rehearsal of an update runs nothing that is due.
 */
function trueup_holds() {
	return defined( 'TRUEUP_CONTENT' ) && TRUEUP_CONTENT && ! str_ends_with( WP_CACHE_KEY_SALT, '-rehearsal:' );
}

/**
 * Of requests at the same moment one does it, and the others have waited for it; null where that takes too long.
 *
 * By a file of the site's own: a lock of the database server's has a name that any other site may take.
 */
function trueup_alone( callable $work ) {
	$file  = fopen( WP_TEMP_DIR . '/trueup-held.lock', 'c' );
	$until = microtime( true ) + 10;
	while ( $file ) {
		if ( flock( $file, LOCK_EX | LOCK_NB ) ) {
			try {
				return $work();
			} finally {
				fclose( $file );
			}
		}
		if ( microtime( true ) > $until ) {
			fclose( $file );
			break;
		}
		usleep( 20000 );
	}
	return null;
}

/**
 * What waits: by hook, the times and signatures of due events; by number, the names of webhooks.
 */
function trueup_held() {
	global $wpdb;
	// Not get_option(), which would have the database send all options for this one: a site may have any number of them.
	$found = $wpdb->get_var( "SELECT option_value FROM {$wpdb->options} WHERE option_name = 'trueup_held'" );
	$held  = is_string( $found ) ? @unserialize( $found, array( 'allowed_classes' => false ) ) : null;
	$held  = is_array( $held ) ? $held : array();
	return array(
		'events'   => (array) ( $held['events'] ?? array() ),
		'webhooks' => (array) ( $held['webhooks'] ?? array() ),
	);
}

function trueup_remember( array $held ) {
	global $wpdb;
	$held['events'] = array_filter( $held['events'] );
	$is_kept        = false !== $wpdb->query(
		$wpdb->prepare(
			"INSERT INTO {$wpdb->options} (option_name, option_value, autoload) VALUES ('trueup_held', %s, 'off') ON DUPLICATE KEY UPDATE option_value = VALUES(option_value)",
			serialize( $held )
		)
	);
	$numbers = array(
		'events'   => array_sum( array_map( 'count', $held['events'] ) ),
		'actions'  => array_sum( array_column( trueup_waiting_actions(), 'count' ) ),
		'webhooks' => count( $held['webhooks'] ),
	);
	trueup_count( static fn( $known ) => $numbers + $known );
	return $is_kept;
}

/**
 * Answers of a table that another plugin may have, or nothing where there is none of this shape.
 */
function trueup_asked( callable $question ) {
	global $wpdb;
	$shows  = $wpdb->hide_errors();
	$silent = $wpdb->suppress_errors( true );
	try {
		return $question( $wpdb );
	} finally {
		$wpdb->suppress_errors( $silent );
		$wpdb->show_errors( $shows );
	}
}

/**
 * Scheduled actions (Action Scheduler's) wait in a status that it does not claim.
 */
function trueup_hold_actions() {
	trueup_asked(
		static fn( $wpdb ) => $wpdb->query(
			"UPDATE {$wpdb->prefix}actionscheduler_actions SET status = '" . TRUEUP_WAITING . "', claim_id = 0 WHERE status IN ('pending', 'in-progress')"
		)
	);
}

function trueup_waiting_actions() {
	return (array) trueup_asked(
		static fn( $wpdb ) => $wpdb->get_results(
			"SELECT hook, COUNT(*) AS count, MIN(scheduled_date_gmt) AS next FROM {$wpdb->prefix}actionscheduler_actions WHERE status = '" . TRUEUP_WAITING . "' GROUP BY hook ORDER BY hook",
			ARRAY_A
		)
	);
}

/**
 * The names of WooCommerce's webhooks that are not paused, by number.
 */
function trueup_active_webhooks() {
	$found = trueup_asked( static fn( $wpdb ) => $wpdb->get_results( "SELECT webhook_id, name FROM {$wpdb->prefix}wc_webhooks WHERE status = 'active'", ARRAY_A ) );
	return array_column( (array) $found, 'name', 'webhook_id' );
}

function trueup_set_webhooks( array $numbers, $status ) {
	if ( ! $numbers ) {
		return;
	}
	$list = implode( ',', array_map( 'intval', $numbers ) );
	trueup_asked(
		static function ( $wpdb ) use ( $list, $status ) {
			$wpdb->query( $wpdb->prepare( "UPDATE {$wpdb->prefix}wc_webhooks SET status = %s WHERE webhook_id IN ($list)", $status ) );
			// What WooCommerce keeps of which ones there are.
			$wpdb->query( "DELETE FROM {$wpdb->options} WHERE option_name LIKE '\\_transient\\_%woocommerce\\_webhook\\_ids%'" );
		}
	);
	wp_cache_flush();
}

/**
 * The due events that wp-cron.php runs: all but those that wait; none before it is known which those are.
 */
function trueup_ready( $ready ) {
	if ( ! trueup_holds() ) {
		return $ready;
	}
	if ( ! trueup_is_held() ) {
		return array();
	}
	$now    = microtime( true );
	$ready  = is_array( $ready ) ? $ready : array_filter( _get_cron_array(), static fn( $time ) => $time <= $now, ARRAY_FILTER_USE_KEY );
	$events = trueup_held()['events'];
	foreach ( $ready as $time => $hooks ) {
		foreach ( array_intersect_key( $hooks, $events ) as $hook => $keys ) {
			$waiting                  = array_flip( (array) $events[ $hook ] );
			$ready[ $time ][ $hook ] = array_filter( $keys, static fn( $one ) => ! isset( $waiting[ "$time|$one" ] ), ARRAY_FILTER_USE_KEY );
		}
		$ready[ $time ] = array_filter( $ready[ $time ] );
	}
	return array_filter( $ready );
}

/**
 * What waits, for people: kind, name, how many, and when the first was due.
 */
function trueup_list_held() {
	$held = trueup_held();
	$rows = array();
	// Production came to have it by a copy's backup: there, events are due when they are.
	foreach ( trueup_holds() ? $held['events'] : array() as $hook => $keys ) {
		$rows[] = array( 'kind' => 'event', 'name' => (string) $hook, 'count' => count( $keys ), 'due_at' => gmdate( 'c', min( array_map( 'intval', $keys ) ) ) );
	}
	foreach ( trueup_waiting_actions() as $action ) {
		$rows[] = array( 'kind' => 'action', 'name' => $action['hook'], 'count' => (int) $action['count'], 'due_at' => gmdate( 'c', (int) strtotime( $action['next'] . ' UTC' ) ) );
	}
	foreach ( $held['webhooks'] as $name ) {
		$rows[] = array( 'kind' => 'webhook', 'name' => (string) $name, 'count' => 1, 'due_at' => null );
	}
	return $rows;
}

/**
 * Have what waits under these names wait no longer; null: all of it. What was released.
 */
function trueup_release( $names ) {
	$named    = static fn( $name ) => null === $names || in_array( (string) $name, $names, true );
	$released = array_values( array_filter( trueup_list_held(), static fn( $row ) => $named( $row['name'] ) ) );
	$held     = trueup_held();
	foreach ( array_filter( array_keys( $held['events'] ), $named ) as $hook ) {
		unset( $held['events'][ $hook ] );
	}
	foreach ( array_filter( array_column( trueup_waiting_actions(), 'hook' ), $named ) as $hook ) {
		trueup_asked( static fn( $wpdb ) => $wpdb->query( $wpdb->prepare( "UPDATE {$wpdb->prefix}actionscheduler_actions SET status = 'pending' WHERE status = %s AND hook = %s", TRUEUP_WAITING, $hook ) ) );
	}
	$webhooks = array_filter( $held['webhooks'], $named );
	trueup_set_webhooks( array_keys( $webhooks ), 'active' );
	$held['webhooks'] = array_diff_key( $held['webhooks'], $webhooks );
	trueup_remember( $held );
	return $released;
}

/**
 * Answer root: {"release": …} releases; anything else is told what waits.
 */
function trueup_answer( $asked ) {
	define( 'SHORTINIT', true );
	require $_SERVER['DOCUMENT_ROOT'] . '/wp-load.php';
	$asked = json_decode( $asked, true );
	if ( isset( $asked['release'] ) && trueup_list_held() ) {
		$rows = trueup_alone( static fn() => trueup_release( $asked['names'] ?? null ) );
	} else {
		$rows = trueup_list_held();
	}
	echo json_encode( array( 'held' => $rows ), JSON_INVALID_UTF8_SUBSTITUTE ), "\n";
}

if ( ! defined( 'ABSPATH' ) ) {
	if ( 'cli' === PHP_SAPI ) {
		// Without WordPress, whose wp-config.php says where.
		define( 'TRUEUP_MAIL_LOG', dirname( __DIR__ ) . '/logs/mail.log' );
		trueup_take_mail();
	} elseif ( isset( $_SERVER['TRUEUP_ASKED'] ) ) {
		trueup_answer( $_SERVER['TRUEUP_ASKED'] );
	}
	return;
}

foreach ( array( array( 'muplugins_loaded', 0, 'trueup_hold', 0 ), array( 'pre_get_ready_cron_jobs', PHP_INT_MAX, 'trueup_ready', 1 ) ) as list( $trueup_hook, $trueup_priority, $trueup_function, $trueup_count ) ) {
	if ( function_exists( 'add_filter' ) ) {
		// A wp-config.php of an earlier version has not loaded this, and trueup.php does.
		add_filter( $trueup_hook, $trueup_function, $trueup_priority, $trueup_count );
	} else {
		// WordPress takes these for its own when it comes to have filters.
		$GLOBALS['wp_filter'][ $trueup_hook ][ $trueup_priority ][ $trueup_function ] = array( 'function' => $trueup_function, 'accepted_args' => $trueup_count );
	}
}

if ( ! trueup_mail_is_declared() ) {
	register_shutdown_function( 'trueup_see_who_declares_mail' );

	/**
	 * As WordPress's own, but nothing is sent, and nobody else is asked to send it.
	 */
	function wp_mail( $to, $subject, $message, $headers = '', $attachments = array(), $embeds = array() ) {
		$atts = compact( 'to', 'subject', 'message', 'headers', 'attachments', 'embeds' );
		$atts = (array) apply_filters( 'wp_mail', $atts ) + $atts;
		trueup_keep_mail( $atts );
		do_action( 'wp_mail_succeeded', array( 'to' => (array) $atts['to'] ) + $atts );
		return true;
	}
}
