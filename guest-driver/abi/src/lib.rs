//! What the NIC and its drivers say to each other: registers, rings, commands.
