// Package journaltest lets tests of the packages that change the host open journals, undo them, and fail them at a given
// call. Tests alone import it.
package journaltest
