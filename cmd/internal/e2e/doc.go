// Package e2e tests aetherd from outside: real processes, real kernels' network stacks, real TUN devices,
// between network namespaces of package lab. It has tests only. They are the promises of the README, one by
// one: two commands make a tunnel, nothing leaks, nothing is left behind, connections survive.
//
// The test binary builds ./cmd/aetherd once (with the race detector when it has that itself), then starts
// itself again in namespaces of its own: a mount namespace with an empty /run, a network namespace, and a
// user namespace when it is not run as root. Where the system does not allow that, the tests are skipped with
// what the kernel said.
//
// Each machine of a test lists everything that a daemon may change in its namespace (links, addresses, routes
// of all tables, rules, the nftables ruleset, kernel parameters, holder files, processes) before the first
// daemon starts there, and again when the test ends; a difference fails the test. Failed tests print what
// their daemons have said.
//
// One test builds aetherd a second time, with another function in the place where the daemon reads the clock.
//
// The tests run the product that is on disk, which the test cache of the go command does not know: use
// -count=1.
//
// Some tests have a longer form, chosen by environment variables:
//
//	AETHER_SOAK=200    cycles of up, kill -9, up (default 10), and 30 s of blackout (default 8 s)
package e2e
