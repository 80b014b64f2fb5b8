//! The API server of the rehearsal: one store of objects, and the part of the Kubernetes API that kube and kubectl need.
