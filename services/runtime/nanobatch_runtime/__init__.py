"""What every nanobatch service shares: errors and gRPC manners, keys, pictures, time. It knows no contract of ours."""
