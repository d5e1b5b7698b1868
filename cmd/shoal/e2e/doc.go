// Package e2e tests the program as its users meet it: three processes of the
// real binary, clients over TCP, faults from outside (kill -9, SIGSTOP, a power
// cut of all file systems at once).
//
// It owns a cluster of processes (cluster, node), an MQTT client that keeps its
// session over reconnects as the standard demands (client), the histories that
// clients write (history) and the pure checker that judges them (check). It
// has nothing but tests and knows nothing of the program's insides: what it
// asks, it asks by MQTT and HTTP.
//
// Tests here never wait for time to pass, but for something to be true. The
// one exception is the pace of faults.
//
// SHOAL_CHAOS=long makes the chaos tests run for SHOAL_CHAOS_FOR (default 3m
// each), SHOAL_CHAOS_SEED repeats a run's choices, SHOAL_BENCH=1 turns the
// measurements on, SHOAL_E2E=all (or CI) makes a missing tool a failure,
// SHOAL_BINARY names a program to test in place of the one built from source.
package e2e
