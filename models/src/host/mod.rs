//! The machine around a model: memory, IOMMU, clock.
