// Package sysctl holds kernel parameters at a value for as long as somebody needs them, and restores exactly
// what was there before.
//
// Several daemons may run in one network namespace and want the same parameter. Each of them holds it; the
// list of holders is shared through a directory of small files ([DefaultDir]), one per boot, namespace and
// key, changed under one file lock. The file keeps the value that was there before the first holder, the
// value that is held, and the holders. The last holder out restores the first value, but only while the
// current value is still the one that was set: a value that somebody else has chosen since is left and
// reported.
//
// A holder that was killed is removed when its state directory's undo journal is undone, at its next start or
// stop.
//
// # Keys
//
// A key is a path below /proc/sys, with slashes ("net/ipv4/conf/eth0.100/forwarding"), because interface
// names may contain dots. Only keys below net/ are accepted; they belong to the network namespace of the
// calling thread.
package sysctl
