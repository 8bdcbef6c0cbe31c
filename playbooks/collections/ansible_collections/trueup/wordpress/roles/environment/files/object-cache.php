<?php
/**
 * Plugin Name: Trueup object cache
 * Description: Keeps WordPress's objects in the node's Redis, under the environment's own prefix.
 * License: Apache-2.0
 *
 * Without Redis every request still works: what it stores lives as long as the request.
 *
 * Copyright the Trueup contributors
 * SPDX-License-Identifier: Apache-2.0
 */

defined( 'ABSPATH' ) || exit;

/** What WordPress calls; each function is documented in wp-includes/cache.php. */
function wp_cache_init() {
	$GLOBALS['wp_object_cache'] = new WP_Object_Cache( TRUEUP_REDIS_SOCKET, WP_CACHE_KEY_SALT );
}

function wp_cache_add( $key, $data, $group = '', $expire = 0 ) {
	return $GLOBALS['wp_object_cache']->add( $key, $data, $group, (int) $expire );
}

function wp_cache_add_multiple( array $data, $group = '', $expire = 0 ) {
	return $GLOBALS['wp_object_cache']->add_multiple( $data, $group, (int) $expire );
}

function wp_cache_replace( $key, $data, $group = '', $expire = 0 ) {
	return $GLOBALS['wp_object_cache']->replace( $key, $data, $group, (int) $expire );
}

function wp_cache_set( $key, $data, $group = '', $expire = 0 ) {
	return $GLOBALS['wp_object_cache']->set( $key, $data, $group, (int) $expire );
}

function wp_cache_set_multiple( array $data, $group = '', $expire = 0 ) {
	return $GLOBALS['wp_object_cache']->set_multiple( $data, $group, (int) $expire );
}

function wp_cache_get( $key, $group = '', $force = false, &$found = null ) {
	return $GLOBALS['wp_object_cache']->get( $key, $group, $force, $found );
}

function wp_cache_get_multiple( $keys, $group = '', $force = false ) {
	return $GLOBALS['wp_object_cache']->get_multiple( $keys, $group, $force );
}

function wp_cache_delete( $key, $group = '' ) {
	return $GLOBALS['wp_object_cache']->delete( $key, $group );
}

function wp_cache_delete_multiple( array $keys, $group = '' ) {
	return $GLOBALS['wp_object_cache']->delete_multiple( $keys, $group );
}

function wp_cache_incr( $key, $offset = 1, $group = '' ) {
	return $GLOBALS['wp_object_cache']->incr( $key, $offset, $group );
}

function wp_cache_decr( $key, $offset = 1, $group = '' ) {
	return $GLOBALS['wp_object_cache']->incr( $key, -$offset, $group );
}

function wp_cache_flush() {
	return $GLOBALS['wp_object_cache']->flush();
}

function wp_cache_flush_runtime() {
	return $GLOBALS['wp_object_cache']->flush_runtime();
}

function wp_cache_flush_group( $group ) {
	return $GLOBALS['wp_object_cache']->flush_group( $group );
}

function wp_cache_supports( $feature ) {
	$known = array( 'add_multiple', 'set_multiple', 'get_multiple', 'delete_multiple', 'flush_runtime', 'flush_group' );
	return in_array( $feature, $known, true );
}

function wp_cache_close() {
	return true;
}

function wp_cache_add_global_groups( $groups ) {
	$GLOBALS['wp_object_cache']->add_global_groups( (array) $groups );
}

function wp_cache_add_non_persistent_groups( $groups ) {
	$GLOBALS['wp_object_cache']->add_non_persistent_groups( (array) $groups );
}

function wp_cache_switch_to_blog( $blog_id ) {
	$GLOBALS['wp_object_cache']->switch_to_blog( (int) $blog_id );
}

/**
 * Two layers: an array for this request, and Redis for the next.
 *
 * Every call to Redis goes through redis(), which turns a Redis that does not answer into null for the rest of the
 * request. Integers are stored as digits, so that Redis itself can count; anything else is serialized.
 */
class WP_Object_Cache {
	public $cache_hits   = 0;
	public $cache_misses = 0;

	private $client         = null;
	private $prefix         = '';
	private $blog           = '';
	private $cache          = array();
	private $global_groups  = array();
	private $request_groups = array();

	public function __construct( $socket, $prefix ) {
		$this->prefix = $prefix;
		$this->switch_to_blog( get_current_blog_id() );
		try {
			$client = new Redis();
			// @: a refused connection is also a PHP warning; the next line says it all.
			if ( @$client->pconnect( $socket, 0, 0.5, $prefix, 0, 1.0 ) ) {
				$this->client = $client;
			}
		} catch ( RedisException $error ) {
			$this->give_up( $error );
		}
	}

	public function add( $key, $data, $group = '', $expire = 0 ) {
		if ( wp_suspend_cache_addition() || ! $this->valid( $key ) ) {
			return false;
		}
		$id = $this->id( $key, $group );
		if ( array_key_exists( $id, $this->cache ) ) {
			return false;
		}
		if ( $this->shared( $group ) ) {
			$stored = $this->redis( 'set', $id, $this->encode( $data ), $this->options( $expire, 'nx' ) );
			if ( false === $stored ) {
				return false;
			}
		}
		$this->remember( $id, $data );
		return true;
	}

	public function replace( $key, $data, $group = '', $expire = 0 ) {
		$this->get( $key, $group, false, $found );
		return $found && $this->set( $key, $data, $group, $expire );
	}

	public function set( $key, $data, $group = '', $expire = 0 ) {
		if ( ! $this->valid( $key ) ) {
			return false;
		}
		$id = $this->id( $key, $group );
		$this->remember( $id, $data );
		if ( $this->shared( $group ) ) {
			$this->redis( 'set', $id, $this->encode( $data ), $this->options( $expire ) );
		}
		return true;
	}

	public function get( $key, $group = '', $force = false, &$found = null ) {
		$found = false;
		if ( ! $this->valid( $key ) ) {
			return false;
		}
		$values = $this->fetch( array( $this->id( $key, $group ) ), $group, $force );
		$found  = (bool) $values;
		return $found ? current( $values ) : false;
	}

	public function get_multiple( $keys, $group = '', $force = false ) {
		$ids = array();
		foreach ( $keys as $key ) {
			if ( $this->valid( $key ) ) {
				$ids[ $key ] = $this->id( $key, $group );
			}
		}
		$found  = $this->fetch( array_values( $ids ), $group, $force );
		$values = array();
		foreach ( $keys as $key ) {
			$values[ $key ] = isset( $ids[ $key ] ) ? ( $found[ $ids[ $key ] ] ?? false ) : false;
		}
		return $values;
	}

	public function delete( $key, $group = '' ) {
		if ( ! $this->valid( $key ) ) {
			return false;
		}
		$id      = $this->id( $key, $group );
		$existed = array_key_exists( $id, $this->cache );
		unset( $this->cache[ $id ] );
		return ( $this->shared( $group ) && $this->redis( 'unlink', $id ) ) || $existed;
	}

	public function add_multiple( array $data, $group = '', $expire = 0 ) {
		return $this->each( $data, fn( $key ) => $this->add( $key, $data[ $key ], $group, $expire ) );
	}

	public function set_multiple( array $data, $group = '', $expire = 0 ) {
		return $this->each( $data, fn( $key ) => $this->set( $key, $data[ $key ], $group, $expire ) );
	}

	public function delete_multiple( array $keys, $group = '' ) {
		return $this->each( array_flip( $keys ), fn( $key ) => $this->delete( $key, $group ) );
	}

	/** The new value; false where there is none to count from. Never below zero. */
	public function incr( $key, $offset = 1, $group = '' ) {
		$value = $this->get( $key, $group, true, $found );
		if ( ! $found ) {
			return false;
		}
		$id    = $this->id( $key, $group );
		$start = is_numeric( $value ) ? (int) $value : 0;
		$new   = max( 0, $start + (int) $offset );
		if ( $this->shared( $group ) ) {
			if ( is_int( $value ) && $new > 0 ) {
				$counted = $this->redis( 'incrBy', $id, (int) $offset );
				$new     = is_int( $counted ) ? max( 0, $counted ) : $new;
			} else {
				$this->redis( 'set', $id, $this->encode( $new ), array( 'KEEPTTL' ) );
			}
		}
		$this->cache[ $id ] = $new;
		return $new;
	}

	public function flush() {
		$this->cache = array();
		return $this->unlink_all( $this->prefix );
	}

	public function flush_runtime() {
		$this->cache = array();
		return true;
	}

	public function flush_group( $group ) {
		$start       = $this->id( '', $group );
		$this->cache = array_filter( $this->cache, fn( $id ) => ! str_starts_with( $id, $start ), ARRAY_FILTER_USE_KEY );
		return ! $this->shared( $group ) || $this->unlink_all( $start );
	}

	public function add_global_groups( array $groups ) {
		$this->global_groups += array_fill_keys( $groups, true );
	}

	public function add_non_persistent_groups( array $groups ) {
		$this->request_groups += array_fill_keys( $groups, true );
	}

	public function switch_to_blog( $blog_id ) {
		$this->blog = is_multisite() ? $blog_id . ':' : '';
	}

	/** Shown by debugging plugins. */
	public function stats() {
		printf( '<p>Redis %s, hits %d, misses %d</p>', $this->client ? 'answers' : 'is away', (int) $this->cache_hits, (int) $this->cache_misses );
	}

	/** The values that are there, by id. */
	private function fetch( array $ids, $group, $force ) {
		$values  = array();
		$missing = array();
		foreach ( $ids as $id ) {
			if ( array_key_exists( $id, $this->cache ) && ! ( $force && $this->client && $this->shared( $group ) ) ) {
				$values[ $id ] = $this->copy( $this->cache[ $id ] );
			} else {
				$missing[] = $id;
			}
		}
		if ( $missing && $this->shared( $group ) ) {
			$answers = $this->redis( 'mget', $missing ) ?: array();
			foreach ( $answers as $index => $text ) {
				if ( false !== $text ) {
					$values[ $missing[ $index ] ] = $this->decode( $text );
					$this->remember( $missing[ $index ], $values[ $missing[ $index ] ] );
				}
			}
		}
		$this->cache_hits   += count( $values );
		$this->cache_misses += count( $ids ) - count( $values );
		return $values;
	}

	/** Ask Redis; null when it does not answer, and then nothing more is asked in this request. */
	private function redis( $command, ...$arguments ) {
		if ( ! $this->client ) {
			return null;
		}
		try {
			return $this->client->$command( ...$arguments );
		} catch ( RedisException $error ) {
			$this->give_up( $error );
			return null;
		}
	}

	private function give_up( RedisException $error ) {
		$this->client = null;
		error_log( 'Redis does not answer, so this request caches nothing: ' . $error->getMessage() );
	}

	/** Remove every key that starts so. SCAN may show a key twice, never hide one that was there all along. */
	private function unlink_all( $start ) {
		$pattern = addcslashes( $start, '*?[]\\^-' ) . '*';
		$cursor  = null;
		do {
			if ( ! $this->client ) {
				return false;
			}
			try {
				$keys = $this->client->scan( $cursor, $pattern, 1000 );
			} catch ( RedisException $error ) {
				$this->give_up( $error );
				return false;
			}
			if ( $keys ) {
				$this->redis( 'unlink', $keys );
			}
		} while ( $cursor > 0 );
		return true;
	}

	private function id( $key, $group ) {
		$group = $group ?: 'default';
		$blog  = isset( $this->global_groups[ $group ] ) ? '' : $this->blog;
		return $this->prefix . $blog . $group . ':' . $key;
	}

	private function shared( $group ) {
		return ! isset( $this->request_groups[ $group ?: 'default' ] );
	}

	private function valid( $key ) {
		return is_int( $key ) || ( is_string( $key ) && '' !== trim( $key ) );
	}

	private function remember( $id, $data ) {
		$this->cache[ $id ] = $this->copy( $data );
	}

	/** A caller that changes its object must not change ours. */
	private function copy( $data ) {
		return is_object( $data ) ? clone $data : $data;
	}

	private function encode( $data ) {
		return is_int( $data ) ? (string) $data : serialize( $data );
	}

	private function decode( $text ) {
		return preg_match( '/^-?\d+$/', $text ) ? (int) $text : unserialize( $text );
	}

	private function options( $expire, ...$flags ) {
		return $expire > 0 ? array_merge( $flags, array( 'ex' => $expire ) ) : $flags;
	}

	private function each( array $data, callable $one ) {
		return array_combine( array_keys( $data ), array_map( $one, array_keys( $data ) ) );
	}
}
