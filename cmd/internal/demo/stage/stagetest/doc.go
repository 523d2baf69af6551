// Package stagetest runs the demonstration and the benchmark for tests: the program that is shipped, started the way a
// user starts it.
package stagetest
