// Package config reads the configuration file of aetherd, lays the command-line flags over it and checks the
// result as a whole.
//
// The file is TOML (version 1.0), at most [MaxFileBytes] long, and lives at [DefaultPath] unless --config
// names another one. [Default] is the one place that knows the defaults, the table behind [Keys] the one
// place that knows the keys: the example file, the documentation table, the flags and the checks all come
// from it.
//
// Nothing here changes the host. A caller reads with [Resolve] before it opens, creates or binds anything;
// when the error is not nil the configuration must not be used at all. The error is an [*Error] that lists
// every problem found, each with file, line, key and remedy.
package config
