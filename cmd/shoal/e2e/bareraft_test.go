package e2e

const bareRaftCommand = "bare-raft"

func bareRaft([]string) int { return 0 }
