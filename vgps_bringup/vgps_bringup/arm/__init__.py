"""The WidowX arm: kinematics, BridgeData's action semantics, guards, watchdogs and the two arms behind one seam."""
