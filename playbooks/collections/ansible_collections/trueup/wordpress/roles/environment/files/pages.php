<?php
/**
 * Pages that the web server keeps: which of them changed is said once, at the end of the request in which they did; and
 * a page that the application wants kept by nobody is kept by nobody.
 *
 * Copyright the Trueup contributors
 * SPDX-License-Identifier: Apache-2.0
 */

const TRUEUP_PURGE_SOCKET     = '/run/trueup-purge.sock';
const TRUEUP_PURGE_MOST       = 200;
const TRUEUP_PURGE_PATIENCE_S = 0.25;

/**
 * What changed in this request: `all`, or the number of a post with what of it shows: its own page, or also what lists it.
 *
 * A run of minutes tells meanwhile what changed since the last time: who ends it in the midst leaves nothing untold.
 * All of it is told once more at the end, for what a page shows is also written without an event, and after it.
 */
function trueup_changed( $what, $id = 0 ) {
	global $trueup_pages;
	$now = microtime( true );
	if ( ! $trueup_pages['new'] ) {
		$trueup_pages['since'] = $now;
	}
	foreach ( array( 'told', 'new' ) as $kind ) {
		if ( 'all' === $what || isset( $trueup_pages[ $kind ]['all'] ) || count( $trueup_pages[ $kind ] ) > TRUEUP_PURGE_MOST ) {
			$trueup_pages[ $kind ] = array( 'all' => array( 'all', 0 ) );
		} else {
			$trueup_pages[ $kind ][ "$what $id" ] = array( $what, $id );
		}
	}
	// A request for a page is over soon. A run tells at once: ten times in a row, and twice a second in the long term.
	if ( $now > ( trueup_is_a_run() ? $trueup_pages['free_at'] : $trueup_pages['since'] + 0.5 ) ) {
		$trueup_pages['free_at'] = max( $trueup_pages['free_at'], $now - 4.5 ) + 0.5;
		$said                    = $trueup_pages['new'];
		$trueup_pages['new']     = array();
		trueup_tell( $said );
	}
}
$GLOBALS['trueup_pages'] = array( 'told' => array(), 'new' => array(), 'since' => 0.0, 'free_at' => 0.0 );

/**
 * Whether this is WP-CLI or a run of due events, which may take hours.
 */
function trueup_is_a_run() {
	return 'cli' === PHP_SAPI || wp_doing_cron();
}

/**
 * What came too soon after the last telling, and was followed by no other change, is told with what the run asks the
 * database next. No question is asked in the midst of another one: which pages it is about, nobody looks up here.
 */
function trueup_tell_what_waits( $query ) {
	global $trueup_pages;
	if ( $trueup_pages['new'] && microtime( true ) > $trueup_pages['since'] + 1 && trueup_is_a_run() ) {
		$trueup_pages['new'] = array();
		trueup_tell( array( 'all' => array( 'all', 0 ) ) );
	}
	return $query;
}
add_filter( 'query', 'trueup_tell_what_waits', PHP_INT_MAX );

/**
 * At the end of the request: all that changed in it.
 */
function trueup_tell_changes() {
	global $trueup_pages;
	$said                 = $trueup_pages['told'];
	$trueup_pages['told'] = array();
	$trueup_pages['new']  = array();
	trueup_tell( $said );
}
add_action( 'shutdown', 'trueup_tell_changes', PHP_INT_MAX );
// Also where somebody ends the request in the midst of that, and what is done after it.
register_shutdown_function( 'trueup_tell_changes' );

/**
 * Tell the node what changed. A page must not wait for it, nor fail by it: where nobody listens, pages end by their time.
 */
function trueup_tell( $told ) {
	if ( ! $told ) {
		return;
	}
	try {
		$lines = isset( $told['all'] ) ? array( 'all' => true ) : trueup_changed_lines( $told );
	} catch ( Throwable $error ) {
		$lines = array( 'all' => true );
	}
	$text = implode( "\n", array_keys( $lines ) ) . "\n";
	if ( count( $lines ) > TRUEUP_PURGE_MOST || strlen( $text ) > 32768 ) {
		$text = "all\n";
	}
	$until = microtime( true ) + TRUEUP_PURGE_PATIENCE_S;
	do {
		$stream = @stream_socket_client( 'unix://' . TRUEUP_PURGE_SOCKET, $code, $message, 0.05 );
		if ( $stream ) {
			stream_set_blocking( $stream, false );
			@fwrite( $stream, $text );
			fclose( $stream );
			return;
		}
		usleep( 100 );
		// EAGAIN: so many are telling at this moment that there is no place; all else will not be better in a moment.
	} while ( 11 === $code && microtime( true ) < $until );
}

/**
 * The lines of a message, as keys.
 */
function trueup_changed_lines( $told ) {
	$lines = array();
	foreach ( $told as list( $what, $id ) ) {
		if ( 'term' === $what ) {
			$link = get_term_link( $id );
			$link = is_wp_error( $link ) ? '' : $link;
			trueup_changed_line( $lines, 'list', $link );
			continue;
		}
		trueup_changed_line( $lines, 'page', get_permalink( $id ) );
		if ( 'lists' !== $what ) {
			continue;
		}
		$post = get_post( $id );
		$seen = array( home_url( '/' ), get_post_type_archive_link( $post->post_type ), get_author_posts_url( $post->post_author ) );
		if ( get_option( 'page_for_posts' ) ) {
			$seen[] = get_permalink( get_option( 'page_for_posts' ) );
		}
		if ( 'post' === $post->post_type ) {
			list( $year, $month, $day ) = explode( '-', substr( $post->post_date, 0, 10 ) );
			array_push( $seen, get_year_link( $year ), get_month_link( $year, $month ), get_day_link( $year, $month, $day ) );
		}
		foreach ( get_object_taxonomies( $post->post_type, 'objects' ) as $taxonomy ) {
			if ( ! is_taxonomy_viewable( $taxonomy ) ) {
				continue;
			}
			foreach ( wp_get_object_terms( $id, $taxonomy->name, array( 'fields' => 'ids' ) ) as $term ) {
				foreach ( array_merge( array( $term ), get_ancestors( $term, $taxonomy->name, 'taxonomy' ) ) as $one ) {
					$link   = get_term_link( $one, $taxonomy->name );
					$seen[] = is_wp_error( $link ) ? '' : $link;
				}
			}
		}
		foreach ( $seen as $url ) {
			trueup_changed_line( $lines, 'list', $url );
		}
	}
	return $lines;
}

function trueup_changed_line( &$lines, $word, $url ) {
	$path = is_string( $url ) ? wp_parse_url( $url, PHP_URL_PATH ) : null;
	// An address without a path differs from others by its query: all of these count as the first page.
	$path = is_string( $path ) && '' !== $path ? $path : '/';
	if ( strlen( $path ) < 4096 && ! preg_match( '/[\x00-\x20]/', $path ) ) {
		$lines[ "$word $path" ] = true;
	}
}

/**
 * A post that visitors see, or saw; null for whatever has no page.
 */
function trueup_shown_post( $post ) {
	$post = get_post( $post );
	return $post && is_post_type_viewable( $post->post_type ) && is_post_status_viewable( get_post_status( $post ) ) ? $post : null;
}

/**
 * Whether posts of a type are part of many pages: menus, templates, blocks, styles.
 */
function trueup_is_part_of_pages( $type ) {
	return 'nav_menu_item' === $type || 'custom_css' === $type || 0 === strpos( $type, 'wp_' );
}

function trueup_watch_posts() {
	add_action(
		'transition_post_status',
		static function ( $new, $old, $post ) {
			$shown = is_post_status_viewable( $new );
			// It comes, or it goes: menus, lists of recent ones and neighbours name it on any page.
			if ( is_post_type_viewable( $post->post_type ) && is_post_status_viewable( $old ) !== $shown ) {
				trueup_changed( 'all' );
			} elseif ( trueup_is_part_of_pages( $post->post_type ) && ( 'publish' === $new || 'publish' === $old ) ) {
				trueup_changed( 'all' );
			}
		},
		PHP_INT_MAX,
		3
	);
	add_action(
		'post_updated',
		static function ( $id, $after, $before ) {
			if ( ! trueup_shown_post( $after ) ) {
				return;
			}
			foreach ( array( 'post_title', 'post_name', 'post_parent', 'post_type', 'post_password', 'post_author', 'post_date' ) as $field ) {
				if ( $after->$field !== $before->$field ) {
					trueup_changed( 'all' );
					return;
				}
			}
			trueup_changed( 'lists', $id );
		},
		PHP_INT_MAX,
		3
	);
	add_action(
		'deleted_post',
		static function ( $id, $post ) {
			$shown = is_post_status_viewable( $post->post_status ) || 'attachment' === $post->post_type;
			if ( $shown && ( is_post_type_viewable( $post->post_type ) || trueup_is_part_of_pages( $post->post_type ) ) ) {
				trueup_changed( 'all' );
			}
		},
		PHP_INT_MAX,
		2
	);
	add_action(
		'set_object_terms',
		static function ( $id, $terms, $new, $taxonomy, $append, $old ) {
			$taxonomy = get_taxonomy( $taxonomy );
			$old      = array_map( 'intval', (array) $old );
			$new      = array_map( 'intval', $append ? array_merge( (array) $new, $old ) : (array) $new );
			if ( ( array_diff( $old, $new ) || array_diff( $new, $old ) ) && $taxonomy && $taxonomy->public && trueup_shown_post( $id ) ) {
				trueup_changed( 'lists', $id );
				foreach ( array_diff( $old, $new ) as $one ) {
					$term = get_term_by( 'term_taxonomy_id', $one );
					$term && trueup_changed( 'term', (int) $term->term_id );
				}
			}
		},
		PHP_INT_MAX,
		6
	);
	$featured = static function ( $meta, $id, $key ) {
		if ( in_array( $key, array( '_thumbnail_id', '_wp_page_template', '_elementor_data' ), true ) && trueup_shown_post( $id ) ) {
			trueup_changed( 'lists', $id );
		}
	};
	foreach ( array( 'added_post_meta', 'updated_post_meta', 'deleted_post_meta' ) as $hook ) {
		add_action( $hook, $featured, PHP_INT_MAX, 3 );
	}
}
trueup_watch_posts();

function trueup_watch_comments() {
	$changed = static function ( $comment ) {
		$comment = get_comment( $comment );
		if ( $comment && trueup_shown_post( (int) $comment->comment_post_ID ) ) {
			trueup_changed( 'lists', (int) $comment->comment_post_ID );
		}
	};
	$if_shown = static function ( $id, $comment = null ) use ( $changed ) {
		$comment = $comment instanceof WP_Comment ? $comment : get_comment( $id );
		if ( $comment && '1' === (string) $comment->comment_approved ) {
			$changed( $comment );
		}
	};
	add_action( 'wp_insert_comment', $if_shown, PHP_INT_MAX, 2 );
	add_action( 'edit_comment', $if_shown, PHP_INT_MAX, 1 );
	add_action( 'deleted_comment', $if_shown, PHP_INT_MAX, 2 );
	add_action(
		'transition_comment_status',
		static function ( $new, $old, $comment ) use ( $changed ) {
			if ( 'approved' === $new || 'approved' === $old ) {
				$changed( $comment );
			}
		},
		PHP_INT_MAX,
		3
	);
}
trueup_watch_comments();

function trueup_watch_the_rest() {
	$all  = static fn() => trueup_changed( 'all' );
	$term = static function ( $id, $number, $taxonomy ) {
		$found = get_taxonomy( $taxonomy );
		if ( 'nav_menu' === $taxonomy || ( $found && $found->public ) ) {
			trueup_changed( 'all' );
		}
	};
	foreach ( array( 'switch_theme', 'customize_save_after', 'wp_update_nav_menu', 'wp_delete_nav_menu', 'permalink_structure_changed', 'upgrader_process_complete', 'deleted_user' ) as $hook ) {
		add_action( $hook, $all, PHP_INT_MAX, 0 );
	}
	add_action( 'edited_term', $term, PHP_INT_MAX, 3 );
	add_action( 'delete_term', $term, PHP_INT_MAX, 3 );
	add_action(
		'profile_update',
		static function ( $id, $old ) {
			$new = get_userdata( $id );
			// Customers have names, too, which no page shows.
			if ( $new && user_can( $new, 'edit_posts' ) ) {
				foreach ( array( 'display_name', 'user_nicename', 'user_url' ) as $field ) {
					if ( $new->$field !== $old->$field ) {
						trueup_changed( 'all' );
						return;
					}
				}
			}
		},
		PHP_INT_MAX,
		2
	);
	$option = static function ( $name, $old = null, $new = null ) {
		if ( $old !== $new && trueup_shows( $name ) ) {
			trueup_changed( 'all' );
		}
	};
	add_action( 'updated_option', $option, PHP_INT_MAX, 3 );
	add_action( 'added_option', static fn( $name, $value ) => $option( $name, null, $value ), PHP_INT_MAX, 2 );
	add_action( 'deleted_option', static fn( $name ) => $option( $name, '', null ), PHP_INT_MAX, 1 );
}
trueup_watch_the_rest();

/**
 * Whether what an option says is on pages. A plugin adds names of its own with the filter `trueup_shown_options`.
 */
function trueup_shows( $name ) {
	$names = array(
		'blogname', 'blogdescription', 'show_on_front', 'page_on_front', 'page_for_posts', 'posts_per_page', 'posts_per_rss',
		'permalink_structure', 'category_base', 'tag_base', 'sidebars_widgets', 'stylesheet', 'template', 'site_icon', 'site_logo',
		'sticky_posts', 'active_plugins', 'date_format', 'time_format', 'timezone_string', 'gmt_offset', 'start_of_week', 'WPLANG',
		'home', 'siteurl', 'blog_public', 'show_avatars', 'avatar_default', 'thread_comments', 'page_comments',
		'comments_per_page', 'comment_order', 'default_comments_page', 'rss_use_excerpt', 'wp_page_for_privacy_policy',
		'woocommerce_currency', 'woocommerce_currency_pos', 'woocommerce_price_num_decimals', 'woocommerce_store_notice',
		'woocommerce_demo_store', 'woocommerce_demo_store_notice', 'woocommerce_coming_soon', 'woocommerce_tax_display_shop',
		'woocommerce_hide_out_of_stock_items', 'woocommerce_stock_format', 'woocommerce_permalinks',
	);
	$names = (array) apply_filters( 'trueup_shown_options', $names );
	return in_array( $name, $names, true ) || 1 === preg_match( '/^(?:widget|theme_mods)_/', $name );
}

/**
 * A shop sells all day: another number of pieces is on the product's own page alone. Lists change when there are none
 * left, or some again, and with the price.
 */
function trueup_watch_shop() {
	$product_of = static function ( $product ) {
		return is_object( $product ) ? (int) ( $product->get_parent_id() ? $product->get_parent_id() : $product->get_id() ) : 0;
	};
	$quantity = static function ( $product ) use ( $product_of ) {
		$id = $product_of( $product );
		if ( $id && trueup_shown_post( $id ) ) {
			trueup_changed( 'page', $id );
		}
	};
	$status = static function ( $id ) {
		$id = 'product_variation' === get_post_type( $id ) ? (int) wp_get_post_parent_id( $id ) : (int) $id;
		if ( $id && trueup_shown_post( $id ) ) {
			trueup_changed( 'lists', $id );
		}
	};
	add_action( 'woocommerce_product_set_stock', $quantity, PHP_INT_MAX, 1 );
	add_action( 'woocommerce_variation_set_stock', $quantity, PHP_INT_MAX, 1 );
	add_action( 'woocommerce_product_set_stock_status', $status, PHP_INT_MAX, 1 );
	add_action( 'woocommerce_variation_set_stock_status', $status, PHP_INT_MAX, 1 );
	add_action(
		'woocommerce_product_object_updated_props',
		static function ( $product, $props ) use ( $quantity, $status, $product_of ) {
			$quantity( $product );
			if ( array_diff( (array) $props, array( 'stock_quantity', 'stock', 'total_sales', 'date_modified', 'download_count' ) ) ) {
				$status( $product_of( $product ) );
			}
		},
		PHP_INT_MAX,
		2
	);
}
trueup_watch_shop();

// What is kept, and of what

/**
 * The last word before headers are sent: a constant of the application's, which other caches of WordPress obey, too.
 *
 * Where the application says nothing of it, nginx serves a page whose time is over for some seconds more, while it asks
 * for a new one; it says for how many, and tells no visitor of it.
 */
function trueup_say_how_to_keep() {
	if ( defined( 'DONOTCACHEPAGE' ) && DONOTCACHEPAGE ) {
		header( 'X-Accel-Expires: 0' );
	}
	header( sprintf( 'X-Trueup-Began: %.6F', $_SERVER['REQUEST_TIME_FLOAT'] ) );
	$said = array( 'cache-control' => array() );
	foreach ( headers_list() as $header ) {
		list( $name, $value )          = explode( ':', "$header:", 2 );
		$said[ strtolower( $name ) ][] = trim( $value, ' :' );
	}
	if ( count( $said['cache-control'] ) > 1 ) {
		// nginx 1.22 knows the first alone.
		header( 'Cache-Control: ' . implode( ', ', $said['cache-control'] ) );
	} elseif ( isset( $_SERVER['TRUEUP_STALE_S'] ) && ! $said['cache-control'] && ! isset( $said['expires'] ) && ! isset( $said['x-accel-expires'] ) ) {
		header( 'Cache-Control: stale-while-revalidate=' . (int) $_SERVER['TRUEUP_STALE_S'] );
	}
}

if ( 'cli' !== PHP_SAPI ) {
	header_register_callback( 'trueup_say_how_to_keep' );
	if ( in_array( $_SERVER['REQUEST_METHOD'] ?? '', array( 'GET', 'HEAD' ), true ) ) {
		// A shortcode may say so in the midst of a page: the page's head waits for its end, or for its first megabytes.
		add_action( 'template_redirect', static fn() => ob_start( null, 4194304 ), PHP_INT_MIN );
	}
}
