output "balancer_name" {
  description = "Host name of the load balancer, for a CNAME of the certificate's name"
  value       = aws_lb.this.dns_name
}

output "bucket" {
  description = "Bucket of payloads"
  value       = aws_s3_bucket.this.id
}

output "database_endpoint" {
  description = "Host and port of the database"
  value       = aws_db_instance.this.endpoint
}

output "role_arn" {
  description = "Role of nodes, to use it elsewhere"
  value       = aws_iam_role.node.arn
}
