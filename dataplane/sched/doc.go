// Package sched is the queue in front of a sender: flow queues served in turn, each with CoDel (FQ-CoDel, RFC
// 8290 and RFC 8289). It is pure: the time is an argument, in nanoseconds of any clock that does not go back.
//
// The queues that one goroutine serves share a [Pool], which owns all memory. So there may be many thousand
// queues, most of them empty, and together they never hold more than the pool's bounds. Nothing is allocated
// once a pool has grown to what it is used for, and nothing here is safe for use by several goroutines at
// once.
//
// Where this differs from RFC 8290: flows are told apart by the whole 32-bit hash instead of by 1024 buckets,
// and the state of a flow that has become idle is kept until its memory is wanted for another flow.
package sched
