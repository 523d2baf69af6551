// Package journal keeps the undo journal of the changes that a daemon makes to its host.
//
// Every change is described as data (a kind and a JSON body that holds what is set and what was there before)
// and is on disk, fsync'd, before the host is touched. After an orderly stop, or after a kill -9 at the next
// start, [Journal.Undo] walks the records backwards and hands each one to the [Undoer] of its kind. An undoer
// takes back exactly the change it is shown; what somebody else has changed since it leaves alone and reports
// as a [Left] line. Undoing is idempotent: a record whose change was never made, or is gone already, is no
// error.
//
// Records carry a [Scope], the boot and the network namespace they belong to. Nothing that they describe
// survives a reboot, so records of another boot are dropped. Records of another network namespace describe
// things that cannot be reached from here; they are kept, left alone and reported.
//
// # File format
//
// One file, [FileName], in the state directory, text, one line per record:
//
//	aethertunnel-journal 1
//	<status> <crc> <json>
//
// status is '+' (pending) or '-' (forgotten), crc is the CRC-32C of the JSON bytes in eight hexadecimal
// digits. A record is appended and fsync'd as a whole. It is forgotten by overwriting its status byte in
// place, which needs no free disk space and cannot tear. A last line without its end, or with a wrong sum, is
// a record whose write was cut short, so its change was never made: it is dropped. A damaged line elsewhere
// is dropped and counted. The file is rewritten (temporary file, fsync, rename) when forgotten records
// dominate it.
package journal
