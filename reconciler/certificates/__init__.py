"""The certificate of all preview URLs: one wildcard, which the control plane itself proves by DNS-01."""
