// Package hosttest gives tests of the platform packages a network namespace of their own and a full listing
// of the network state in it, so that they can show that undoing leaves it byte for byte as it was. Tests
// alone import it.
package hosttest
