package identity

import (
	"crypto/sha256"
	"encoding/binary"
	"slices"
)

// Label separates the uses of one hash function or one key from each other: what was hashed or signed under
// one label is worthless under every other. All labels of the project that feed a hash or a signature are
// below, so that a test can hold them against each other; no label is the beginning of another.
type Label string

// The labels in use. The number at the end changes with the layout of what follows the label.
const (
	// LabelNodeID begins the hash that makes a node's [ID].
	LabelNodeID Label = "aethertunnel node id 1"
	// LabelHybrid begins every message under a hybrid signature, before the label of its use.
	LabelHybrid Label = "aethertunnel hybrid signature 1"
	// LabelJoin is for the signature of a request to join a network.
	LabelJoin Label = "aethertunnel join request 1"
	// LabelInviteCheck begins the hash whose first bytes tell a mistyped invite or bearer token.
	LabelInviteCheck Label = "aethertunnel invite check 1"
	// LabelInviteSecret begins the hash under which a gateway remembers an invite without knowing its secret.
	LabelInviteSecret Label = "aethertunnel invite secret 1"
	// LabelStockID begins the hash that makes the id of a stock CONNECT-IP client, which has no node keys.
	LabelStockID Label = "aethertunnel stock client id 1"
)

// Labels returns every label.
func Labels() []Label {
	return []Label{
		LabelNodeID, LabelHybrid, LabelJoin, LabelInviteCheck, LabelInviteSecret, LabelStockID,
	}
}

// Sum is SHA-256 over the label and the parts, each preceded by its length, so that no two different lists of
// parts give the same input.
func (l Label) Sum(parts ...[]byte) [sha256.Size]byte {
	h := sha256.New()
	frame := func(part []byte) {
		h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(part))))
		h.Write(part)
	}
	frame([]byte(l))
	for _, part := range parts {
		frame(part)
	}
	return [sha256.Size]byte(h.Sum(nil))
}

// signable reports whether messages may be signed under l.
func (l Label) signable() bool { return l != LabelHybrid && slices.Contains(Labels(), l) }
