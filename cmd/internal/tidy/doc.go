// Package tidy holds no code: its tests keep the promises that docs/architecture.md makes about the whole tree, such as
// which package may import which.
package tidy
