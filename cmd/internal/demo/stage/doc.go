// Package stage is where the demonstration and the benchmark play: a private corner of the machine, and aetherd
// processes in the network namespaces of package lab.
//
// The corner is a mount namespace with an empty /run of its own, in memory. Everything that the processes write (state
// directories, keys, sockets, lists of sysctl holders) goes there and vanishes with the last of them, however they
// end; the daemons of the machine itself are out of sight. Without root the corner is also a user namespace, in which
// the caller counts as root. Because a running Go program cannot move into such namespaces, [Enter] starts the same
// program again inside, and [Prepare] is what that one calls first.
//
// The package works on Linux alone; elsewhere only what has no system in it is left.
package stage
