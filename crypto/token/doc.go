// Package token holds the two secrets that people carry by hand: the invite, a line that lets a node join a
// network, and the bearer token of a stock CONNECT-IP client.
//
// An invite is
//
//	aether://HOST:PORT[,HOST:PORT…]/CODE
//
// where CODE is base64url without padding of
//
//	version (1) ‖ gateway id (32) ‖ secret (16) ‖ check (4)
//
// HOST is a DNS name or an IP literal, IPv6 in brackets. The check is the beginning of a SHA-256 over the
// address list and everything before it, so that one mistyped character anywhere is told apart from an invite
// that the gateway does not accept. It protects from typing errors only: what proves the gateway is its id,
// and what proves the invitee is the secret. Every future version keeps the version in the first byte and the
// check in the last four, so that an old program can say "unknown version" and mean it.
//
// Secrets never print: String, fmt verbs, slog and JSON all hide them. The one way to their text is
// [Invite.Encode] and [Bearer].
package token
