//! PCI Express functions: config space, BARs, MSI-X, ATS, PRI and PASID capabilities.
