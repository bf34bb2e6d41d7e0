"""Planning: what signing, training and detection will cost, from counted work and the rates of a device."""
