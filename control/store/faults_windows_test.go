package store

import "os"

const crashDirVariable = "AETHER_TEST_CRASH_DIR"

// crashChild has no work on Windows: the test that starts it needs kill -9.
func crashChild(string) { os.Exit(1) }
