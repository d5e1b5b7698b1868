package admin

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
)

// operations are what POST /api/v1/cluster/{operation} knows; those of the list
// need no node.
var operations = []string{"drain", "undrain", "remove", "rebalance"}

// Operation is the body of a request to change the cluster.
type Operation struct {
	Node string `json:"node"`
	// Force overrules what only protects from a mistake.
	Force bool `json:"force"`
}

// Operated is the answer.
type Operated struct {
	// Text says what follows, in words.
	Text string `json:"text"`
}

// overview serves what the node knows of the whole cluster.
func (s *Server) overview(w http.ResponseWriter, r *http.Request) {
	n, phase := s.current()
	if n == nil {
		http.Error(w, phase, http.StatusServiceUnavailable)
		return
	}
	writeJSON(w, n.Overview(r.Context()))
}

// operate carries out an operator's wish, or says why not (409).
func (s *Server) operate(w http.ResponseWriter, r *http.Request) {
	n, phase := s.current()
	if n == nil {
		http.Error(w, phase, http.StatusServiceUnavailable)
		return
	}
	command := r.PathValue("operation")
	if !slices.Contains(operations, command) {
		http.Error(w, fmt.Sprintf("unknown operation %q", command), http.StatusNotFound)
		return
	}
	var o Operation
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxHeaderBytes))
	d.DisallowUnknownFields()
	if err := d.Decode(&o); err != nil {
		http.Error(w, "body: "+err.Error(), http.StatusBadRequest)
		return
	}
	if (o.Node == "") != (command == "rebalance") {
		http.Error(w, "body: want the name of a node, and for rebalance none", http.StatusBadRequest)
		return
	}
	text, err := n.Operate(r.Context(), command, o.Node, o.Force)
	if err != nil {
		http.Error(w, err.Error(), http.StatusConflict)
		return
	}
	writeJSON(w, Operated{text})
}

func writeJSON(w http.ResponseWriter, v any) {
	body, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Write(append(body, '\n')) // a failed write is the asker's loss
}
