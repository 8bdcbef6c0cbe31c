<?php
/**
 * Plugin Name: Trueup
 * Description: What a copy of a site must not do: be found by search engines, or write to the site's customers.
 * License: Apache-2.0
 *
 * Copyright the Trueup contributors
 * SPDX-License-Identifier: Apache-2.0
 */

if ( ! defined( 'TRUEUP_ENVIRONMENT' ) || 'production' === TRUEUP_ENVIRONMENT ) {
	return;
}

add_filter( 'pre_option_blog_public', static fn() => '0' );

/**
 * Keep a message in the log instead of sending it: one JSON object a line.
 *
 * wp_mail() takes any answer but null for its own, so this says that the message was sent.
 */
function trueup_keep_mail( $answer, $message ) {
	$line = array(
		'time'        => gmdate( 'c' ),
		'to'          => $message['to'],
		'subject'     => $message['subject'],
		'message'     => $message['message'],
		'headers'     => $message['headers'],
		'attachments' => array_map( 'basename', array_values( (array) $message['attachments'] ) ),
	);
	$json = wp_json_encode( $line, JSON_UNESCAPED_UNICODE | JSON_UNESCAPED_SLASHES );
	file_put_contents( TRUEUP_MAIL_LOG, $json . "\n", FILE_APPEND | LOCK_EX );
	return true;
}
add_filter( 'pre_wp_mail', 'trueup_keep_mail', PHP_INT_MAX, 2 );
