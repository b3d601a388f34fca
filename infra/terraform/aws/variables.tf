variable "name" {
  description = "Name of the fleet; the prefix of all names here"
  type        = string
  default     = "cursus"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,23}$", var.name))
    error_message = "Lower-case letters, digits and hyphens, at most 24, a letter first: load balancers take no longer name."
  }
}

variable "vpc_id" {
  description = "Network of the fleet"
  type        = string
}

variable "private_subnet_ids" {
  description = "Subnets of nodes and database, in two zones or more, with a way out to the internet for image pulls, S3 and endpoints"
  type        = list(string)
}

variable "public_subnet_ids" {
  description = "Subnets of the load balancer, in two zones or more"
  type        = list(string)
}

variable "certificate_arn" {
  description = "Certificate of the load balancer (ACM)"
  type        = string
}

variable "client_cidr_blocks" {
  description = "Networks whose clients may call the load balancer"
  type        = list(string)
  default     = ["0.0.0.0/0"]
}

variable "metrics_security_group_ids" {
  description = "Security groups that may scrape metrics of nodes (port 9090)"
  type        = set(string)
  default     = []
}

variable "image" {
  description = "Image of a node, built from infra/docker/Dockerfile"
  type        = string
}

variable "architecture" {
  description = "Processor that the image was built for"
  type        = string
  default     = "X86_64"

  validation {
    condition     = contains(["X86_64", "ARM64"], var.architecture)
    error_message = "X86_64 or ARM64."
  }
}

variable "nodes" {
  description = "Fewest and most nodes"
  type        = object({ min = number, max = number })
  default     = { min = 2, max = 6 }
}

variable "node_cpu" {
  description = "CPU units of a node (1024 is one core)"
  type        = number
  default     = 2048
}

variable "node_memory_mib" {
  description = "Memory of a node"
  type        = number
  default     = 4096
}

variable "drain_seconds" {
  description = "Time that requests in flight get when a node ends; Fargate gives at most 120 s, of which 15 s are for what comes after them"
  type        = number
  default     = 30

  validation {
    condition     = var.drain_seconds >= 0 && var.drain_seconds <= 105
    error_message = "0 to 105."
  }
}

variable "settings" {
  description = "More settings of nodes as environment variables (cursus serve --help)"
  type        = map(string)
  default     = {}
}

variable "database_instance_class" {
  description = "Size of the database"
  type        = string
  default     = "db.m7g.large"
}

variable "database_storage_gib" {
  description = "Size of the database's disk; it grows by itself to four times this"
  type        = number
  default     = 100
}

variable "database_connections" {
  description = "Shared connections of a node (--database-connections)"
  type        = number
  default     = 16
}

variable "backup_days" {
  description = "Days for which the database can be put back to any second; the bucket keeps deleted objects as long and a day more"
  type        = number
  default     = 7

  validation {
    condition     = var.backup_days >= 1 && var.backup_days <= 35
    error_message = "1 to 35."
  }
}

variable "is_protected" {
  description = "Refuse to destroy database and bucket"
  type        = bool
  default     = true
}
